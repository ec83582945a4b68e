"""The circuit picture: one offline HTML file, assembled from the files in `static/`.

Nothing in the page is fetched: style, script and data are inline, and a content-security policy that
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
SCRIPTS = (
    "format.js",
    "layout.js",
    "draw.js",
    "view.js",
    "prompts.js",
    "panel.js",
    "export.js",
    "picture.js",
)

_REQUIRED = ("title", "answers", "nodes", "edges")
_PLACEHOLDER = re.compile(r"%%(csp|style|script|payload)%%")


def render_html(payload: dict[str, Any]) -> str:
    """The page that shows `payload`, ready to be written to a file and opened.

    Args:
        payload: JSON-like data, schema 1: the circuit's nodes and edges, its numbers and a few prompt
            pairs. Values that are not finite are shown as missing.

    Raises:
        UserError: the payload has another schema, lacks a required part, or holds no plain data.
    """
    _check(payload)
    style = _static("picture.css")
    script = "(() => {\n'use strict';\n" + "\n".join(_static(name) for name in SCRIPTS) + "})();\n"
    parts = {
        "csp": _policy(style, script),
        "style": style,
        "script": script,
        "payload": _embed(payload),
    }
    # One pass: a placeholder inside the payload stays the text it is.
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], _static("picture.html"))


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
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _embed(payload: dict[str, Any]) -> str:
    """JSON that is inert inside a script element: no <, > or &, no character beyond ASCII."""
    try:
        text = json.dumps(_finite(payload), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except TypeError as error:
        raise UserError(f"the picture's payload must be plain JSON data: {error}") from error
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def write_picture(path: Path, payload: dict[str, Any]) -> Path:
    """Write the page of a payload atomically and return its path."""
    return write_text(path, render_html(payload))
