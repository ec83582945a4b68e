"""`train --resume`: the saved config wins over every default, and an option that contradicts it is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.training.config import TrainConfig


def option_value(rest: list[str], name: str) -> str | None:
    """What follows --name (or --name=) on the command line; None if it is not there."""
    for place, word in enumerate(rest):
        if word == f"--{name}" and place + 1 < len(rest):
            return rest[place + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None


def saved_config_of(rest: list[str]) -> TrainConfig | None:
    """The config that the run in --out was started with; None without --out."""
    from sparsecircuits.training.loop import saved_config

    out = option_value(rest, "out")
    return None if out is None else saved_config(Path(out))


def require_agreement(saved: TrainConfig, asked: TrainConfig, given: set[str]) -> None:
    """Raise UserError for the first setting in which the two differ, an explicit option before what a preset
    or --dense implies. given: names of the options on the command line."""
    differ = {
        name: (before, value)
        for (name, before), (_, value) in zip(_settings(saved.to_dict()), _settings(asked.to_dict()), strict=True)
        if before != value and (name, value) != ("dtype", "auto")  # what auto settled on is what is saved
    }
    for name, (before, value) in sorted(differ.items(), key=lambda item: not _is_given(item[0], given)):
        option = f"--{name.replace('_', '-')} {_written(value)}"
        if not _is_given(name, given):
            option = f"{'--dense' if 'dense' in given else '--preset'}, which means {option},"
        raise UserError(
            f"--resume goes on with the saved config: {option} contradicts its {_written(before)}; leave it out"
        )


def _settings(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_given(name: str, given: set[str]) -> bool:
    option = name.replace("_", "-")
    head, dot, tail = option.rpartition(".")
    return bool({option, f"{head}{dot}no-{tail}"} & given)


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "(nothing)"
    return str(value)
