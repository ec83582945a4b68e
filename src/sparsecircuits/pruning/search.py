"""Search over the hyperparameters of pruning: many prunings, side by side, the smallest circuit wins.

Gao et al. 2025 tune eight hyperparameters per task (32 rounds of 8 runs of CARBS); here Optuna's TPE does. One
process asks and tells the study, a pool of processes or a Ray cluster prunes, so that a file on this machine's
disk is all the state there is. A search that was killed goes on where it stood.
"""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.schema import SearchRecord
from sparsecircuits.errors import TaskTooHard, UserError
from sparsecircuits.files import atomic_path, sweep, write_text
from sparsecircuits.locks import LOCK_NAME, locked
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discovery import prune, require_doable
from sparsecircuits.pruning.size_curve import curve_of, pareto_front
from sparsecircuits.pruning.workers import pool, refuse_in_worker
from sparsecircuits.tasks import Task

if TYPE_CHECKING:
    import optuna

# Factors below and above each centre. `lr_warmup_frac` and `one_minus_beta2` are shares and stay below 1.
RANGES = {
    "k_coef": 30.0,
    "init_noise_scale": 10.0,
    "init_noise_bias": 5.0,
    "weight_decay": 10.0,
    "lr": 5.0,
    "one_minus_beta2": 5.0,
    "lr_warmup_frac": 5.0,
    "heaviside_temp": 5.0,
}
FAILED = 1e9  # the value of a trial that found no circuit
JOURNAL, SUMMARY = "study.journal", "search.json"
Report = Callable[[float, str], None]


def search(
    model: SparseTransformer,
    task: Task,
    target_loss: float,
    folder: str | Path,
    *,
    trials: int,
    workers: int | str = 1,
    config: PruneConfig | None = None,
    means: torch.Tensor,
    report: Report | None = None,
) -> Circuit:
    """The smallest circuit (edges, then nodes) of `trials` prunings, all of which hold the target on training
    and validation prompts. Held-out losses choose nothing.

    The first trial is `config` itself, and is the centre of the others. folder keeps the study, every trial's
    circuit and `search.json` with all trials and the Pareto front of edges against loss; called again with
    the same folder, the search goes on: `trials` counts those that are done. workers: processes on this
    machine, or "ray" for the cluster that RAY_ADDRESS names (a local one without it).

    Raises UserError when the folder holds another search, another process searches there, or Optuna is not installed,
    TaskTooHard when the
    whole model misses the target or no trial found a circuit.
    """
    refuse_in_worker()
    folder, config = Path(folder), config or PruneConfig()
    if trials < 1:
        raise UserError(f"a search needs at least 1 trial, got {trials}")
    if config.method != "learned":
        raise UserError(f"the search is over the hyperparameters of learned gates; the method is {config.method}")
    require_doable(model, task, target_loss, config)
    with locked(folder / LOCK_NAME, f"a search in {folder}"):
        study = _open_study(folder, _identity(model, task, target_loss, config), config)
        tell = report or (lambda share, details: None)
        trial = _Trial(model, task, target_loss, means)
        _run(study, trial, folder, trials, workers, config, tell)
        return _best(study, folder, task)


@dataclasses.dataclass(frozen=True)
class _Trial:
    """One pruning; what all trials of a search share."""

    model: SparseTransformer
    task: Task
    target_loss: float
    means: torch.Tensor

    def __call__(self, config: PruneConfig) -> str | None:
        """The JSON of the circuit that these settings find; None if there is none."""
        try:
            circuit = prune(self.model, self.task, self.target_loss, config=config, means=self.means)
        except TaskTooHard:
            return None
        return circuit.model_dump_json()


def _identity(model: SparseTransformer, task: Task, target_loss: float, config: PruneConfig) -> dict[str, Any]:
    """What must be equal for two calls to be one search."""
    return {
        "model_id": content_hash(model),
        "task": task.name,
        "pairs": hashlib.sha256(repr(task.draw("train", 16)).encode()).hexdigest(),
        "target_loss": target_loss,
        "config": dataclasses.asdict(config),
    }


def _open_study(folder: Path, identity: dict[str, Any], config: PruneConfig) -> "optuna.Study":
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UserError("the search needs Optuna: pip install 'sparsecircuits[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep(folder)
    _mend(folder / JOURNAL)
    backend = JournalFileBackend(str(folder / JOURNAL), _NoLock())  # type: ignore[arg-type]
    storage = optuna.storages.JournalStorage(backend)
    with warnings.catch_warnings():  # Optuna 4 calls constant_liar an experiment
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=config.seed % 2**32, constant_liar=True, n_startup_trials=8)
    study = optuna.create_study(study_name="prune", storage=storage, sampler=sampler, load_if_exists=True)
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
        study.enqueue_trial({name: getattr(config, name) for name in RANGES})
    elif known != identity:
        changed = next(key for key in identity if known.get(key) != identity[key])
        raise UserError(f"{folder} holds a search with another {changed}: give another --out, or delete it")
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        # Asked for by a process that was killed: its place is given to a new trial with the same settings.
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


class _NoLock:
    """Optuna's interface of a lock. The folder's is enough; Optuna's own would outlive a kill, and then be waited for
    without end."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _mend(journal: Path) -> None:
    """Cut a journal back to its last whole line: a kill or a full disk may have left half a one."""
    data = journal.read_bytes() if journal.exists() else b""
    whole = 0
    for line in data.splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        whole += len(line)
    if whole < len(data):
        warnings.warn(f"{journal} is damaged after {whole} bytes: going on with what is before", stacklevel=3)
        with atomic_path(journal) as temporary:
            temporary.write_bytes(data[:whole])


def _suggest(trial: "optuna.Trial", centre: PruneConfig) -> PruneConfig:
    values: dict[str, Any] = {}
    for name, factor in RANGES.items():
        middle = getattr(centre, name)
        share = name in ("lr_warmup_frac", "one_minus_beta2")
        high = min(middle * factor, max(middle, 0.5)) if share else middle * factor
        values[name] = trial.suggest_float(name, middle / factor, high, log=True)
    return dataclasses.replace(centre, **values)


def _run(
    study: "optuna.Study",
    run: "_Trial",
    folder: Path,
    trials: int,
    workers: int | str,
    config: PruneConfig,
    tell: Report,
) -> None:
    """Ask, prune and tell until `trials` are done."""
    left = trials - len(_done(study))
    if left <= 0:
        return
    running: dict[Future[str | None], optuna.Trial] = {}
    with pool(run, workers, left) as (submit, size):
        while left > 0 or running:
            while left > 0 and len(running) < size:
                trial, left = study.ask(), left - 1
                running[submit(_suggest(trial, config))] = trial
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                _record(study, running.pop(future), future.result(), folder)
            _write_summary(study, folder)
            done = _done(study)
            best = min((trial.value for trial in done), default=FAILED)
            shown = f"best {int(best)} edges" if best < FAILED else "no circuit yet"
            tell(len(done) / trials, f"trial {len(done)} of {trials} · {shown}")


def _record(study: "optuna.Study", trial: "optuna.Trial", text: str | None, folder: Path) -> None:
    """Keep a trial's circuit, then tell the study: what is told is on disk."""
    if text is None:
        study.tell(trial, FAILED)
        return
    circuit = Circuit.model_validate_json(text)
    circuit.save(_path(folder, trial.number))
    trial.set_user_attr("n_nodes", len(circuit.nodes))
    trial.set_user_attr("n_edges", len(circuit.edges))
    trial.set_user_attr("validation_loss", circuit.found_by.validation_loss)
    trial.set_user_attr("curve", curve_of(circuit))
    study.tell(trial, len(circuit.edges) + min(len(circuit.nodes), 999) / 1000)


def _path(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04}.json"


def _done(study: "optuna.Study") -> list[Any]:
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def search_summary(study: "optuna.Study") -> dict[str, Any]:
    """All finished trials, and the Pareto front of their curves as [nodes, edges, loss]."""
    rows, points = [], []
    for trial in _done(study):
        row = {name: trial.user_attrs.get(name) for name in ("n_nodes", "n_edges", "validation_loss")}
        rows.append({"trial": trial.number, **row, "params": trial.params})
        points += [tuple(point) for point in trial.user_attrs.get("curve", [])]
    return {"trials": rows, "pareto": [list(point) for point in pareto_front(points)]}


def _write_summary(study: "optuna.Study", folder: Path) -> None:
    write_text(folder / SUMMARY, json.dumps(search_summary(study), indent=1) + "\n")


def _best(study: "optuna.Study", folder: Path, task: Task) -> Circuit:
    done = [trial for trial in _done(study) if trial.value is not None and trial.value < FAILED]
    if not done:
        raise TaskTooHard(f"none of the search's trials found a circuit of {task.name}")
    best = min(done, key=lambda trial: (trial.value, trial.number))
    circuit, summary = Circuit.load(_path(folder, best.number)), search_summary(study)
    search = SearchRecord(trials=len(summary["trials"]), best_trial=best.number)
    curve = tuple(tuple(point) for point in summary["pareto"])
    found_by = circuit.found_by.model_copy(update={"curve": curve, "search": search})
    return circuit.model_copy(update={"found_by": found_by})
