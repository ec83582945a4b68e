"""The main job end to end: corpus, training, pruning, circuit, page."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsecircuits.errors import TaskTooHard, UserError
from sparsecircuits.files import write_text

TASK = "single_double_quote"
MARK = "quickstart.txt"
"""Its presence says that a folder is quickstart's own and may be replaced."""
Progress = Callable[[str], AbstractContextManager[Callable[[float, str], None]]]


def run_quickstart(
    out: Path, minutes: float, seed: int, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make `out` a run directory with a trained nano model, a circuit, its report and its page.

    The work is done beside `out` and takes its place at the end, so that an earlier quickstart survives a
    failure. Returns paths and headline numbers. Raises UserError when `out` is something else, or when the
    model did not learn the task.
    """
    out = Path(out)
    if out.exists() and not (out / MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and was not made by quickstart: choose another --out")
    work = out.with_name(f".{out.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        record = _work(work, out.name, minutes, seed, progress, say)
        _replace(out, work)
    except TaskTooHard as error:
        _replace(out, work)
        raise UserError(
            f"{error}: this machine needs longer than {minutes:g} minutes (--minutes). The model is kept in {out}"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    folder = out / "circuits" / TASK
    return {
        "run": str(out),
        "circuit": str(folder / "circuit.json"),
        "page": str(folder / "circuit.html"),
        **record,
    }


def _replace(out: Path, work: Path) -> None:
    """Put the finished work in the place of an earlier quickstart."""
    if out.exists():
        shutil.rmtree(out)
    work.rename(out)


def _work(
    work: Path, name: str, minutes: float, seed: int, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    from sparsecircuits.circuits.discovery import prune
    from sparsecircuits.circuits.faithfulness import faithfulness
    from sparsecircuits.data import Tokenizer, prepare_tokens
    from sparsecircuits.pruning.config import PruneConfig
    from sparsecircuits.tasks import get_task
    from sparsecircuits.training.config import nano
    from sparsecircuits.training.loop import train
    from sparsecircuits.viewer.payload import picture_payload
    from sparsecircuits.viewer.picture import write_picture

    config = replace(nano(), steps=None, minutes=minutes, seed=seed)
    say(f"1/4  corpus: the Python standard library and generated simple Python ({config.data})")
    with progress("corpus  ") as update:
        tokens = prepare_tokens(
            config.data, Tokenizer.default(), progress=lambda done, total, label: update(done / total, label)
        )
    say(f"     {tokens.train.size:,} training tokens, {'from the cache' if tokens.cached else 'encoded and cached'}")
    say(f"2/4  training for {minutes:g} minutes: 2 layers, d_model 256, down to {config.sparsity.density:.0%} nonzero")
    with progress("training") as update:
        model = train(config, work, tokens=tokens, report=lambda s: update(s.progress, s.describe()))
    model.name = name
    write_text(work / MARK, "Made by `sparsecircuits quickstart`, which may replace this folder.\n")
    say(f"3/4  pruning to the circuit of {TASK}")
    task, settings = get_task(TASK, model.tokenizer), PruneConfig(seed=seed)
    with progress("pruning ") as update:
        circuit = prune(
            model,
            task,
            config=settings,
            tokens=tokens.train,
            report=update,
        )
    say("4/4  drawing")
    folder = work / "circuits" / TASK
    circuit.save(folder / "circuit.json")
    faithfulness(model, circuit, task).save(folder / "report.json")
    write_picture(folder / "circuit.html", picture_payload(model, circuit, task))
    assert circuit.losses is not None
    return {
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "loss": circuit.losses.circuit,
        "loss_full": circuit.losses.full,
        "loss_ablated": circuit.losses.ablated,
    }
