"""The command line: parse, call, print. Logic lives elsewhere.

Exit codes: 0; 2 for a wrong use; 1 for a failure, told in one line (a traceback only with --debug).
"""

import io
import os
import sys
import warnings

from sparsecircuits.errors import Interrupted, UserError


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    _make_streams_write()
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        sys.exit(_run(argv))
    except UserError as error:
        _fail(str(error), debug)
    except Interrupted as error:
        _fail(str(error), debug, code=128 + error.number)
    except KeyboardInterrupt:
        _fail("interrupted", debug, code=130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), debug)
    except MemoryError:
        _fail("out of memory: try a smaller --batch-size or model", debug)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error} (--debug shows where)", debug)


def _run(argv: list[str]) -> int:
    from sparsecircuits.cli.arguments import parse

    command = parse(argv)
    from sparsecircuits.cli import commands, show

    show.listen()
    return getattr(commands, command.function)(command) or 0


def _make_streams_write() -> None:
    """A closed stdout or stderr swallows what is written, one that lacks a letter shows its number."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", newline="\n"))  # noqa: SIM115 (to the end)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, debug: bool, code: int = 1) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    first = " ".join(line.strip() for line in message.splitlines() if line.strip())
    sys.stderr.write(f"error: {first}\n")
    sys.exit(code)


def _show_warning(message: object, category: type[Warning], *_rest: object, **_more: object) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        sys.stderr.write(f"warning: {message}\n")
