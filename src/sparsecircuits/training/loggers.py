"""TensorBoard, trackio and wandb beside `metrics.jsonl`, by `--logger`. Each is imported only when asked for.

A resumed run goes on in the same place. TensorBoard then drops what the killed run wrote after the checkpoint;
trackio keeps both, and wandb the first of them (the numbers are the same).
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.training.metrics import Logger

PROJECT = "sparsecircuits"
INSTALL = "pip install 'sparsecircuits[logging]'"


def require_loggers(names: Sequence[str]) -> None:
    """Raise UserError if a logger's package is missing or one is named twice; imports nothing."""
    if len(set(names)) < len(names):
        raise UserError("--logger names the same logger twice")
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--logger {name} needs the package {name}: {INSTALL}")


def open_loggers(
    names: Sequence[str], out: Path, settings: dict[str, Any], resume_step: int | None = None
) -> list[Logger]:
    """The loggers of a run directory.

    settings: the training config, shown beside the curves. resume_step: the checkpoint that a resumed run
    starts from. Raises UserError if a package is missing or a logger cannot start.
    """
    require_loggers(names)
    return [_OPEN[name](Path(out), flat_settings(settings), resume_step) for name in names]


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optimizer": {"lr": 0.05}, …} as {"optimizer.lr": 0.05, …}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat.update(flat_settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


class TensorBoardLogger:
    """Event files under `<run>/tensorboard`."""

    def __init__(self, out: Path, settings: dict[str, Any], resume_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=purge)
        rows = "".join(f"| {name} | {value} |\n" for name, value in settings.items())
        self._writer.add_text("config", f"| setting | value |\n|---|---|\n{rows}")

    def log(self, step: int, values: dict[str, float]) -> None:
        """One scalar for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class TrackioLogger:
    """A run of the project "sparsecircuits" in trackio's own store (`TRACKIO_DIR`)."""

    def __init__(self, out: Path, settings: dict[str, Any], resume_step: int | None) -> None:
        import trackio

        resume = "never" if resume_step is None else "allow"
        with _quiet_stdout():
            self._run = trackio.init(
                project=PROJECT, name=out.resolve().name, config=settings, resume=resume, embed=False
            )

    def log(self, step: int, values: dict[str, float]) -> None:
        """One row."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Wait until the rows are stored."""
        with _quiet_stdout():
            self._run.finish()


class WandbLogger:
    """A run of the project "sparsecircuits"; `WANDB_MODE=offline` keeps it in the run directory."""

    def __init__(self, out: Path, settings: dict[str, Any], resume_step: int | None) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=PROJECT,
                name=out.resolve().name,
                id=None if resume_step is None else _last_wandb_id(out),
                config=settings,
                dir=str(out.resolve()),
                resume=None if resume_step is None else "allow",
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise UserError(
                f"wandb cannot start ({error}): log in with `wandb login`, or set WANDB_MODE=offline"
            ) from error

    def log(self, step: int, values: dict[str, float]) -> None:
        """One row; rows of one step are joined."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _last_wandb_id(out: Path) -> str | None:
    """The id of the newest wandb run in a run directory; its folders end in it."""
    folders = sorted((out / "wandb").glob("*run-*-*"), key=lambda folder: folder.name.split("run-", 1)[1])
    return folders[-1].name.rsplit("-", 1)[1] if folders else None


def _quiet_stdout() -> contextlib.AbstractContextManager[Any]:
    """Stdout belongs to --json; what a logger says goes to stderr."""
    return contextlib.redirect_stdout(sys.stderr)


_OPEN: dict[str, Callable[[Path, dict[str, Any], int | None], Logger]] = {
    "tensorboard": TensorBoardLogger,
    "trackio": TrackioLogger,
    "wandb": WandbLogger,
}
