"""One process at a time in a folder: a lock file that says which process holds it. Imports no torch.

The operating system's lock on the file decides, and ends with the process however that ends. Where the file system
knows no such locks, the process that the file names decides, told from a later one of the same number by when it began.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError

if sys.platform == "win32":
    import msvcrt

    def lock(handle: int) -> None:
        """Lock an open file. Raises BlockingIOError or PermissionError if another holds it, OSError if there are no
        locks here."""
        os.lseek(handle, 1 << 20, os.SEEK_SET)  # what is locked cannot be read, so not where the record stands
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def lock(handle: int) -> None:
        """Lock an open file. Raises BlockingIOError or PermissionError if another holds it, OSError if there are no
        locks here."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK_NAME = ".lock"
POLL = 0.1  # seconds


@contextlib.contextmanager
def locked(file: Path, what: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock `file` (its folder is made) while open; afterwards the file is gone.

    what: what the process that holds it is doing, for the refusal ("a training into runs/a"). Raises UserError that
    names that process, unless wait is given: then it is called with who is waited for, once, and the lock is waited
    for. The lock of a process that is gone is taken over.
    """
    file = Path(file)
    made = [folder for folder in file.parents if not folder.exists()]
    try:
        handle = _take(file)
        told = False
        while handle is None:
            holder = f"{what} is going on in {_name(file)}"
            if wait is None:
                raise UserError(f"{holder}: wait for it, or end it")
            if not told:
                wait(holder)
                told = True
            time.sleep(POLL)
            handle = _take(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)  # before it is let go: whoever gets it then sees that the file is gone
            os.close(handle)
    finally:
        for folder in made:  # what was made for the lock alone goes with it
            with contextlib.suppress(OSError):
                folder.rmdir()


def _take(file: Path) -> int | None:
    """The open, locked file; None if another process holds it."""
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # a holder that had made the folder for its lock just removed it
            continue
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror or error}") from error
        try:
            if not _is_free(handle, file):
                os.close(handle)
                return None
            if not _is_at(handle, file):  # its holder removed it after it was opened here
                os.close(handle)
                continue
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_this_process()).encode() + b"\n")
            return handle
        except OSError as error:
            os.close(handle)
            raise UserError(f"cannot write {file}: {error.strerror or error}") from error


def _is_free(handle: int, file: Path) -> bool:
    try:
        lock(handle)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # this file system has no locks
        return not _runs(_record(file))


def _is_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


def _record(file: Path) -> dict[str, Any]:
    """What the holder wrote; {} if that cannot be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _name(file: Path) -> str:
    for _ in range(5):
        record = _record(file)
        if record:
            break
        time.sleep(POLL / 5)  # it is about to be written
    host = record.get("host")
    where = "" if host in (None, socket.gethostname()) else f" on {host}"
    return f"process {record.get('pid', 'unknown')}{where}"


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "started": started(os.getpid()), "host": socket.gethostname()}


def started(pid: int) -> str | None:
    """When a process began, in the system's own words; None where they are not known, or there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else f"{boot} {fields[19]}"
    except (OSError, IndexError):
        return None


def _runs(record: dict[str, Any]) -> bool:
    """Whether the process that wrote a record still runs. One on another machine is taken to."""
    pid = record.get("pid")
    if not isinstance(pid, int) or pid < 1:
        return False
    if record.get("host") != socket.gethostname():
        return True
    if pid == os.getpid():
        return record.get("started") == started(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return started(pid) == record.get("started")
