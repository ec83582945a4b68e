"""Models that ship with the package, by name: `pretrained:NAME`. `pretrained/manifest.json` says which there are.

Imports neither torch nor what reads the manifest, so that the command line starts at once.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.errors import UserError
from sparsecircuits.files import sha256

if TYPE_CHECKING:
    from sparsecircuits.interop.manifest import Manifest

PREFIX = "pretrained:"
MANIFEST_NAME = "manifest.json"


def root() -> Path:
    """The folder that they lie in: inside an installed package, or beside the sources."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "pretrained"
    return inside if inside.is_dir() else package.parents[1] / "pretrained"


def manifest() -> "Manifest":
    """What ships. Raises UserError for a damaged manifest; without one there are no models."""
    from sparsecircuits.interop.manifest import Manifest

    path = root() / MANIFEST_NAME
    return Manifest.load(path) if path.exists() else Manifest()


def is_pretrained(text: object) -> bool:
    """Whether a text is `pretrained:NAME`."""
    return str(text).startswith(PREFIX)


def folder_of(text: str) -> Path:
    """The folder of `pretrained:NAME`. Raises UserError for a name that does not ship, and for a file that is not
    the one that shipped."""
    from sparsecircuits.interop.manifest import PLAIN_NAME

    name = text.removeprefix(PREFIX)
    if not re.fullmatch(PLAIN_NAME, name):
        raise UserError(f"{text!r} names no pretrained model: pretrained:NAME, and `sparsecircuits models` lists them")
    shipped = manifest().find(name)
    folder = root() / name
    for file, expected in shipped.files.items():
        if not (folder / file).is_file():
            raise UserError(f"{folder / file} is missing: install the package anew")
        if sha256(folder / file) != expected:
            raise UserError(f"{folder / file} is not the file that shipped (its checksum differs)")
    return folder


def ships(path: Path) -> bool:
    """Whether a path lies among the models that ship: nothing is written there."""
    return path.resolve().is_relative_to(root())


def require_own(path: Path) -> None:
    """Raise UserError for a path among the models that ship."""
    if ships(path):
        raise UserError(f"{path} ships with the package: say where to with --out, or copy the model's folder first")
