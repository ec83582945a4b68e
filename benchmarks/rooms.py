"""The way of a model through `prune` in the code, to the first gated forward pass: which files it visits, and how often
it comes back to one.

    python benchmarks/rooms.py

A room is a file of the package; a stay, a stretch of the way within one; a return, a stay in a room that was visited
before. Each call of one function by another is told once, where it happens first, as one would read the code. Left out,
since they are the same whoever asks: drawing prompts (tasks, data, seeds), kernels, and imports. The hand-made model
with two ways to its answers, on one thread.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.nodes.ablation_values import pretraining_means
from sparsecircuits.planted.models import two_way_model
from sparsecircuits.pruning.config import PruneConfig

PASSED_BY = ("tasks/", "data/", "kernels/", "seeds.py")
PACKAGE = str(Path(sc.__file__).parent) + "/"
TASK = "single_double_quote.plain"
prune = sc.prune  # imported before anything is followed


class _Arrived(Exception):
    """The first gated pass has begun."""


def room_of(frame: FrameType) -> str | None:
    """The file of the package that a frame is in; None outside and in what is passed by."""
    path = frame.f_code.co_filename
    room = path.removeprefix(PACKAGE)
    return None if room == path or room.startswith(PASSED_BY) else room


def way(run: Callable[[], Any]) -> tuple[list[str], list[tuple[int, str, str]]]:
    """(rooms in the order of the stays, the calls in their order: depth, room, function)."""
    told: set[tuple[str, str]] = set()
    stays: list[str] = []
    calls: list[tuple[int, str, str]] = []

    def follow(frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        name = frame.f_code.co_qualname
        if name == "gate_channels":
            sys.setprofile(None)
            raise _Arrived
        room, above = room_of(frame), frame.f_back
        while above is not None and room_of(above) is None:
            above = above.f_back
        if room is None or above is None or name.startswith("<"):
            return
        here, caller = f"{room}: {name}", f"{room_of(above)}: {above.f_code.co_qualname}"
        if (caller, here) in told:
            return
        told.add((caller, here))
        for visited in (str(room_of(above)), room):
            if not stays or stays[-1] != visited:
                stays.append(visited)
        depth = 0
        while above is not None:
            depth, above = depth + (room_of(above) is not None), above.f_back
        calls.append((depth, room, name))

    sys.setprofile(follow)
    try:
        run()
    except _Arrived:
        pass
    finally:
        sys.setprofile(None)
    return stays, calls


def main() -> None:
    torch.set_num_threads(1)
    model = two_way_model(Tokenizer.default(), 3.0)
    task = sc.get_task(TASK, tokenizer=model.tokenizer)
    means = pretraining_means(model, torch.arange(4096).numpy() % 2048)
    config = PruneConfig(steps=4, pairs=8, eval_pairs=8, restarts=0, edge_steps=4)
    stays, calls = way(lambda: prune(model, task, config=config, means=means))
    for depth, room, name in calls:
        print(f"{'  ' * depth}{name}  ({room})")
    rooms = list(dict.fromkeys(stays))
    print(f"{len(calls)} calls; {len(stays)} stays in {len(rooms)} rooms, {len(stays) - len(rooms)} returns")


if __name__ == "__main__":
    main()
