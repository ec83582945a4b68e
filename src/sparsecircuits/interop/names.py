"""Models by name: the released ones and those on the Hugging Face Hub, downloaded once into a cache."""

import os
import re
from pathlib import Path

from sparsecircuits.cache import models_cache
from sparsecircuits.errors import UserError
from sparsecircuits.interop import released
from sparsecircuits.runs import RELEASED_CONFIG, RELEASED_WEIGHTS

RELEASED_URL = "https://openaipublic.blob.core.windows.net/circuit-sparsity"
URL_VARIABLE = "SPARSECIRCUITS_RELEASED_URL"
HUB_PREFIX = "hf:"

# csp_yolo1, csp_sweep1_4x_3.7Mnonzero_afrac0.25, dense1_2x, …: one plain path component.
_RELEASED_NAME = re.compile(r"(csp|dense)[A-Za-z0-9]*_?[A-Za-z0-9_.]*")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "vocab.bpe", "final_model.pt"]


def is_name(text: str) -> bool:
    """Whether a text names a model rather than a path."""
    if text.startswith(HUB_PREFIX):
        return _HUB_NAME.fullmatch(text.removeprefix(HUB_PREFIX)) is not None
    return _RELEASED_NAME.fullmatch(text) is not None and ".." not in text


def fetch(name: str) -> Path:
    """The local directory of a named model, downloaded if it is not in the cache.

    Raises UserError when the name is unknown to the server, when there is no connection, and when a file
    arrives damaged.
    """
    if not is_name(name):
        raise UserError(f"{name!r} is no model name")
    return _from_hub(name.removeprefix(HUB_PREFIX)) if name.startswith(HUB_PREFIX) else _released(name)


def _released(name: str) -> Path:
    from sparsecircuits.interop.download import download

    base = os.environ.get(URL_VARIABLE, RELEASED_URL).rstrip("/")
    directory = models_cache() / name
    for file, check in (
        (RELEASED_CONFIG, released.read_config),
        (RELEASED_WEIGHTS, released.load_pt_tensors),
    ):
        download(f"{base}/models/{name}/{file}", directory / file, check)
    return directory


def _from_hub(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise UserError("models on the Hugging Face Hub need: pip install 'sparsecircuits[hf]'") from error
    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot get {repository} from the Hugging Face Hub: {reason}") from error
