"""Real processes of the program that cost no start: each is a fork of one that has imported everything.

What a process is for is kept: its own output, exit code, environment and working directory, and signals end it as they
end any other. Only imports are not anew, and what Python reads from the environment as it starts (PYTHON*, OMP_*); a
test of these starts an interpreter of its own. The first call starts the process that is forked, one for each process
of the tests; it computes nothing itself, since threads do not survive a fork.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, NoReturn

DESCRIPTORS = 4  # stdin, stdout, stderr, and where the exit code is told
IMPORTED = (  # but for the CPU's kernels, whose threads would not survive a fork
    "numba", "torch._dynamo",
    "sparsecircuits.cli.commands", "sparsecircuits.interop.loading", "sparsecircuits.quickstart",
    "sparsecircuits.pruning.many", "sparsecircuits.pruning.backups", "sparsecircuits.faithfulness.report",
    "sparsecircuits.training.loop", "sparsecircuits.viewer.server", "sparsecircuits.bridges.training",
    "sparsecircuits.bridges.steering", "sparsecircuits.bridges.surgery",
)  # fmt: skip


TOGETHER = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}


class Forked:
    """A process as `subprocess.Popen` has it."""

    def __init__(self, pid: int, told: int, stdout: Any) -> None:
        self.pid, self.stdout = pid, stdout
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        """The exit code, or None while it runs; a signal that ended it is negative."""
        if self.returncode is None:
            os.set_blocking(self._told, False)
            try:
                self._hear()
            except BlockingIOError:
                return None
        return self.returncode

    def wait(self) -> int:
        """The exit code, once there is one."""
        if self.returncode is None:
            os.set_blocking(self._told, True)
            self._hear()
        assert self.returncode is not None
        return self.returncode

    def _hear(self) -> None:
        said = os.read(self._told, 99)
        assert said, "the process that is forked has ended"
        os.close(self._told)
        self.returncode = int(said)

    def send_signal(self, number: int) -> None:
        """To a process that runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """At once."""
        self.send_signal(signal.SIGKILL)


_asked: socket.socket | None = None


def _forkable() -> socket.socket:
    global _asked
    if _asked is None:
        _asked, other = socket.socketpair()
        command = [sys.executable, __file__, str(other.fileno())]
        null = subprocess.DEVNULL
        with other:
            first = subprocess.Popen(command, pass_fds=[other.fileno()], stdin=null, stdout=null, env=os.environ)
        atexit.register(first.wait)
        atexit.register(_asked.close)
    return _asked


def start(
    *arguments: Any, code: str | None = None, stdin: int = subprocess.DEVNULL, stdout: Any = subprocess.DEVNULL,
    stderr: Any = subprocess.DEVNULL, env: dict[str, str] | None = None, cwd: Any = None,
) -> Forked:  # fmt: skip
    """`python -m sparsecircuits ARGUMENTS`, or `python -c CODE ARGUMENTS`. stdout: a file too, or PIPE for text."""
    asked = _forkable()
    told, tell = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    piped, read = [], None
    if stdout == subprocess.PIPE:
        ours, stdout = os.pipe()
        piped, read = [stdout], os.fdopen(ours)
    streams = [null if stream == subprocess.DEVNULL else _number(stream) for stream in (stdin, stdout, stderr)]
    request = {"arguments": [*map(str, arguments)], "code": code, "cwd": str(cwd or os.getcwd())}
    data = json.dumps(request | {"env": dict(os.environ if env is None else env)}).encode()
    message = len(data).to_bytes(4, "big") + data
    sent = socket.send_fds(asked, [message], [*streams, tell])
    asked.sendall(message[sent:])
    for mine in (*piped, null, tell):
        os.close(mine)
    return Forked(int.from_bytes(_exactly(asked, 4), "big"), told, read)


def _number(stream: Any) -> int:
    return stream if isinstance(stream, int) else int(stream.fileno())


def run(*arguments: Any, check: bool = False, **more: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of the same program, with its output as text."""
    with _unnamed() as out, _unnamed() as errors:
        code = start(*arguments, stdout=out, stderr=errors, **more).wait()
        said = []
        for file in (out, errors):
            file.seek(0)
            said.append(file.read())
    done = subprocess.CompletedProcess([*map(str, arguments)], code, *said)
    assert not check or code == 0, done.stderr
    return done


def run_together(processes: int, *arguments: Any, code: str) -> str:
    """A program in several processes of one thread each that find one another as those of torchrun do; returns what
    they say. Where one fails the others are killed."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    all_have = {**os.environ, **TOGETHER, "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1"}
    all_have |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    with _unnamed() as out, _unnamed() as errors:
        running = [
            start(*arguments, code=code, stdout=out, stderr=errors, env=all_have | {"RANK": rank, "LOCAL_RANK": rank})
            for rank in map(str, range(processes))
        ]
        while None in (codes := [process.poll() for process in running]):
            if any(codes):
                for process in running:
                    process.kill()
            time.sleep(0.05)
        for file in (out, errors):
            file.seek(0)
        assert not any(codes), errors.read()
        return str(out.read())


def _unnamed() -> Any:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _exactly(asked: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = asked.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _serve(asked: socket.socket) -> dict[str, Any]:
    """Fork whenever asked; returns in the fork."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a shell's Ctrl-C goes to the tests
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ended(running)
        if asked in ready:
            head, descriptors, _, _ = socket.recv_fds(asked, 4, DESCRIPTORS)
            if not head:
                os._exit(0)
            *streams, tell = descriptors
            request = json.loads(_exactly(asked, int.from_bytes(head, "big")))
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                for mine in (asked.detach(), woken, wake, tell, *streams, *running.values()):
                    os.close(mine)
                return request
            running[pid] = tell
            for stream in streams:
                os.close(stream)
            asked.sendall(pid.to_bytes(4, "big"))


def _tell_ended(running: dict[int, int]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            tell = running.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(tell)


def _become(request: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # a pipe, say, where there was a file
        old = getattr(sys, name)
        new = open(number, old.mode, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    torch = importlib.import_module("torch")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
    if request["code"] is None:
        sys.argv = ["sparsecircuits", *request["arguments"]]
        importlib.import_module("sparsecircuits.cli").main()
    else:
        sys.argv = ["-c", *request["arguments"]]
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})


def _end(request: dict[str, Any]) -> NoReturn:
    """Become it, then do what an interpreter does at its end, but for taking apart what was imported."""
    code: Any = 0
    try:
        _become(request)
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):
            code = print(code, file=sys.stderr) or 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream and not stream.closed:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    _end(_serve(socket.socket(fileno=int(sys.argv[1]))))
