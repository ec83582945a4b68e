"""Files that `torch.save` wrote, read as plain data: never a line of code is run, whatever is in them."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from sparsecircuits.errors import UserError


def load_plain(path: Path, what: str = "weights") -> Any:
    """The tensors, numbers, strings, lists and dicts of a file, on the CPU. Raises UserError for a file that is
    missing, damaged, or holds anything else, code above all."""
    try:
        _check_crc(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the loader thinks of a file's protocol is no news for a user
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no {what} at {path}") from error
    except MemoryError as error:
        raise UserError(f"{path} asks for more memory than there is") from error
    except Exception as error:  # hostile bytes make the unpickler raise nearly anything
        raise UserError(f"{path} is damaged or not a plain {what} file ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """Why, in our words where torch's are advice to load the file with its code."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        if called:
            return f"it contains code: it wants {called[1]}, which was refused, and nothing in it was run"
        return "no PyTorch file, or one that contains more than plain data; nothing in it was run"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _check_crc(path: Path) -> None:
    """Compare the checksums that the archive holds, which PyTorch's own reader does not. Files older than the
    zip format have none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"the checksum of {broken} is wrong")
