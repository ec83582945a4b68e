"""The page of a circuit, assembled from the built files in `static/`: as one offline file, or for the server.

In the offline file nothing is fetched: style, script and data are inline, and a content-security policy that
names the hashes of exactly that style and that script forbids everything else.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from sparsecircuits.errors import UserError
from sparsecircuits.files import write_text
from sparsecircuits.viewer.schema import Payload

_PLACEHOLDER = re.compile(r"<!--%%(head|body)%%-->")


def render_html(payload: Payload | Mapping[str, object]) -> str:
    """The page that shows `payload`, ready to be written to a file and opened.

    Args:
        payload: the circuit's nodes and edges, its numbers and a few prompt pairs; or the same as JSON-like
            data, which is checked. Values that are not finite are shown as missing.

    Raises:
        UserError: the data has another schema, lacks a required part, or is not plain.
    """
    style, script = _static("app.css"), _static("app.js")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">'
    data = f'<script type="application/json" id="payload">{_embed(_checked(payload))}</script>'
    return _fill(f"{policy}\n<style>{style}</style>", f"{data}\n<script>{script}</script>")


def render_shell() -> str:
    """The page that the server sends: style and script by address, data by request."""
    return _fill('<link rel="stylesheet" href="app.css">', '<script src="app.js"></script>')


def _fill(head: str, body: str) -> str:
    # One pass: a placeholder inside the payload stays the text it is.
    parts = {"head": head, "body": body}
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], _static("page.html"))


def _checked(payload: Payload | Mapping[str, object]) -> Payload:
    if isinstance(payload, Payload):
        return payload
    try:
        return Payload.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"the picture's payload must be plain JSON data of schema 1, made with this version of sparsecircuits: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error


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


def _embed(payload: Payload) -> str:
    """JSON that is inert inside a script element: no <, > or &, no character beyond ASCII."""
    text = payload.to_json()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def write_picture(path: Path, payload: Payload) -> Path:
    """Write the page of a payload atomically and return its path."""
    return write_text(path, render_html(payload))


def page_name(title: str) -> str:
    """A file name that a title makes, without its suffix."""
    return re.sub(r"[^\w.-]+", "_", title, flags=re.ASCII)[:80].strip("._") or "circuit"
