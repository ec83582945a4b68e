"""What a circuit is called in addresses, requests and files beside it: its run, its task and a hash of its content.

A place in a list would do for one visit, but a link or an open page outlives the list: with another circuit added,
or another file served on the same port, it would show the other's numbers under the old title.
"""

import hashlib
import re
from pathlib import Path

_SHORT, _LONGEST_PART = 12, 60


def circuit_id(run: str, task: str, content: str) -> str:
    """The id of a circuit: letters that need no escape in an address, the content's behind the last dot. content: a
    hash in hexadecimal digits."""
    return ".".join([_part(run), _part(task), content[:_SHORT]])


def copy_id(identifier: str, number: int) -> str:
    """The id of a circuit's copy: of the same run, task and content, with its own files beside it."""
    return f"{identifier}-{number}"


def content_of_file(path: Path) -> str:
    """What stands for the content of a file that is no circuit."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"


def _part(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_LONGEST_PART] or "-"
