"""The page of a circuit, assembled from the built files in `static/`: as one offline file, or for the server.

In the offline file nothing is fetched: style, script and data are inline, and a content-security policy that
names the hashes of exactly that style and that script forbids everything else.
"""

import base64
import hashlib
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.files import write_text

SCHEMA = 1

_REQUIRED = ("title", "answers", "nodes", "edges")
_PLACEHOLDER = re.compile(r"<!--%%(head|body)%%-->")


def render_html(payload: dict[str, Any]) -> str:
    """The page that shows `payload`, ready to be written to a file and opened.

    Args:
        payload: JSON-like data, schema 1: the circuit's nodes and edges, its numbers and a few prompt
            pairs. Values that are not finite are shown as missing.

    Raises:
        UserError: the payload has another schema, lacks a required part, or holds no plain data.
    """
    _check(payload)
    style, script = _static("app.css"), _static("app.js")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">'
    data = f'<script type="application/json" id="payload">{_embed(payload)}</script>'
    return _fill(f"{policy}\n<style>{style}</style>", f"{data}\n<script>{script}</script>")


def render_shell() -> str:
    """The page that the server sends: style and script by address, data by request."""
    return _fill('<link rel="stylesheet" href="app.css">', '<script src="app.js"></script>')


def _fill(head: str, body: str) -> str:
    # One pass: a placeholder inside the payload stays the text it is.
    parts = {"head": head, "body": body}
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], _static("page.html"))


def _check(payload: dict[str, Any]) -> None:
    if payload.get("schema") != SCHEMA:
        raise UserError(
            f"the picture needs a payload of schema {SCHEMA}, this one has {payload.get('schema')!r}: "
            "make it again with this version of sparsecircuits"
        )
    missing = [key for key in _REQUIRED if key not in payload]
    if missing:
        raise UserError(f"the picture's payload lacks {', '.join(missing)}")


def _static(name: str) -> str:
    text = files(__package__).joinpath("static", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")  # browsers hash the text with \n


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _embed(payload: dict[str, Any]) -> str:
    """JSON that is inert inside a script element: no <, > or &, no character beyond ASCII."""
    try:
        text = json.dumps(finite(payload), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except TypeError as error:
        raise UserError(f"the picture's payload must be plain JSON data: {error}") from error
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def finite(value: Any) -> Any:
    """The same JSON-like value with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_picture(path: Path, payload: dict[str, Any]) -> Path:
    """Write the page of a payload atomically and return its path."""
    return write_text(path, render_html(payload))


def page_name(title: str) -> str:
    """A file name that a title makes, without its suffix."""
    return re.sub(r"[^\w.-]+", "_", title, flags=re.ASCII)[:80].strip("._") or "circuit"
