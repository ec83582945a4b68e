"""The main job end to end: corpus, training, pruning, circuit, page."""

import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecircuits.errors import Interrupted, TaskTooHard, UserError
from sparsecircuits.files import recover_folder, replace_folder, write_text
from sparsecircuits.locks import locked
from sparsecircuits.runs import CONFIG_NAME, WEIGHTS_NAME, circuit_path, circuits_folder, page_path
from sparsecircuits.training.checkpoints import checkpoint_steps, newest_checkpoint
from sparsecircuits.training.config import TrainConfig, nano
from sparsecircuits.training.loop import saved_config

if TYPE_CHECKING:
    import numpy as np

    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.models.transformer import SparseTransformer
    from sparsecircuits.tasks import Task

TASK = "single_double_quote"
MARK = "quickstart.txt"
"""Its presence says that a folder is quickstart's own and may be replaced."""
Progress = Callable[[str], AbstractContextManager[Callable[[float, str], None]]]


def run_quickstart(
    out: Path, minutes: float, seed: int, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make `out` a run directory with a trained nano model, a circuit, its report and its page.

    The work is done beside `out` and takes its place at the end, so that an earlier quickstart survives a failure. One
    that was stopped is gone on with by the same call. Returns paths and headline numbers. Raises UserError when `out`
    is something else, cannot be replaced, or is being made by another process, and when the model did not learn the
    task, not even without distractors; that model is kept, beside an earlier quickstart if there is one.
    """
    shown, config = Path(out), replace(nano(), steps=None, minutes=minutes, seed=seed)
    out = _replaceable(shown)
    work = out.with_name(f".{out.name}.partial")
    with locked(out.with_name(f".{out.name}.lock"), f"a quickstart into {shown}"):
        recover_folder(out)
        _tidy(work, out, config, say)
        try:
            record = _work(work, out.name, config, progress, say)
        except TaskTooHard as error:
            kept = _keep(work, out)
            raise UserError(
                f"{error}: this machine needs longer than {minutes:g} minutes (--minutes). The model is kept in {kept}"
            ) from error
        except Interrupted as error:
            raise Interrupted("interrupted: the same command goes on where it stopped", error.number) from error
        except BaseException:
            if not checkpoint_steps(work):
                shutil.rmtree(work, ignore_errors=True)
            raise
        replace_folder(out, work)
    path = circuit_path(circuits_folder(shown), record["task"])
    return {
        "run": str(shown),
        "circuit": str(path),
        "page": str(page_path(path)),
        **record,
    }


def _replaceable(shown: Path) -> Path:
    """Where a quickstart into `shown` really lies, links followed. Raises UserError, before any work, if that is
    something else's or could not be replaced in the end."""
    out = shown.resolve()
    if out == Path.cwd() or out in Path.cwd().parents:
        raise UserError(f"{shown} is the working directory or around it, and would be replaced: choose a folder in it")
    if os.path.ismount(out):
        raise UserError(f"{shown} is a mount point, which cannot be replaced: choose a folder in it")
    if out.exists() and not (out / MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{shown} exists and was not made by quickstart: choose another --out")
    return out


def _tidy(work: Path, out: Path, config: TrainConfig, say: Callable[[str], None]) -> None:
    """Leave in `work` what this quickstart can go on with. Another one's finished model is put aside."""
    try:
        saved, checkpoint = saved_config(work), newest_checkpoint(work)
    except UserError:
        shutil.rmtree(work, ignore_errors=True)
        return
    if replace(saved, dtype=config.dtype) == config and checkpoint is not None:
        say("going on with a quickstart that was stopped")
    elif (work / WEIGHTS_NAME).exists():
        say(f"the model of another quickstart that was stopped is kept in {_keep(work, out)}")
    else:
        shutil.rmtree(work)


def _keep(work: Path, out: Path) -> Path:
    """Put an unfinished quickstart that has a model where it can be used, over nothing; returns where."""
    if not out.exists() or not any(out.iterdir()):
        replace_folder(out, work)
        return out
    names = (out.with_name(f"{out.name}-kept{n or ''}") for n in itertools.count())
    kept = next(path for path in names if not path.exists())
    work.rename(kept)
    return kept


def _work(work: Path, name: str, config: TrainConfig, progress: Progress, say: Callable[[str], None]) -> dict[str, Any]:
    from sparsecircuits.data import Tokenizer, prepare_tokens
    from sparsecircuits.faithfulness.report import save_with_card
    from sparsecircuits.training.loop import require_room, train
    from sparsecircuits.viewer.offline import write_offline

    require_room(config, work)
    say(f"1/4  corpus: the Python standard library and generated simple Python ({config.data})")
    with progress("corpus  ") as update:
        tokens = prepare_tokens(
            config.data, Tokenizer.default(), progress=lambda done, total, label: update(done / total, label)
        )
    say(f"     {tokens.train.size:,} training tokens, {'from the cache' if tokens.cached else 'encoded and cached'}")
    say(
        f"2/4  training for {config.minutes:g} minutes: 2 layers, d_model 256, down to "
        f"{config.sparsity.density:.0%} nonzero"
    )
    with progress("training") as update:
        resume = (work / CONFIG_NAME).exists()
        model = train(config, work, resume=resume, tokens=tokens, report=lambda s: update(s.progress, s.describe()))
    model.name = name
    write_text(work / MARK, "Made by `sparsecircuits quickstart`, which may replace this folder.\n")
    say(f"3/4  pruning to the circuit of {TASK}")
    task, circuit = _found(model, config.seed, tokens.train, progress, say)
    say("4/4  drawing")
    path = save_with_card(model, task, circuit, circuits_folder(work))
    write_offline(page_path(path), path, model, circuit, task)
    assert circuit.losses is not None
    return {
        "task": task.name,
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "loss": circuit.losses.circuit,
        "loss_full": circuit.losses.full,
        "loss_ablated": circuit.losses.ablated,
        "loss_raw": circuit.losses.circuit_raw,
        "loss_full_calibrated": circuit.losses.full_calibrated,
        "loss_ablated_calibrated": circuit.losses.ablated_calibrated,
    }


def _found(
    model: "SparseTransformer", seed: int, tokens: "np.ndarray", progress: Progress, say: Callable[[str], None]
) -> "tuple[Task, Circuit]":
    """The circuit of the task among distractors; where the model did not learn that, without them."""
    from sparsecircuits.pruning.config import PruneConfig
    from sparsecircuits.pruning.discovery import prune
    from sparsecircuits.tasks import PLAIN, get_task

    def pruned(name: str) -> "tuple[Task, Circuit]":
        task = get_task(name, model.tokenizer)
        with progress("pruning ") as update:
            return task, prune(model, task, config=PruneConfig(seed=seed), tokens=tokens, report=update)

    try:
        return pruned(TASK)
    except TaskTooHard as error:
        say(f"     {error}.")
        say(f"     So it is pruned on {TASK}{PLAIN}, where no other quotes stand before: what is found may be no more")
        say("     than which kind of quote there is. Longer training (--minutes) gives the real one")
        return pruned(TASK + PLAIN)
