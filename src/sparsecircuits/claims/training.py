"""Claims about training, over seeds: sparse against dense, width, nonzeros, and what of the recipe matters."""

import copy
import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch

from sparsecircuits.claims.behaviour import text_loss, text_losses
from sparsecircuits.claims.claim import Setting, Subject
from sparsecircuits.claims.judging import (
    FEWEST_SEEDS,
    differences,
    geometric_mean,
    number,
    numbers,
    spread,
    unsaid,
    verdict,
    where,
)
from sparsecircuits.claims.schema import Row, Rows, Verdict
from sparsecircuits.claims.sizes import TARGET, pruning
from sparsecircuits.claims.trained import Changes, Trained, config_of, trained
from sparsecircuits.data import Tokenizer, prepare_tokens, validation_batches
from sparsecircuits.data.excerpt import excerpt
from sparsecircuits.errors import UserError
from sparsecircuits.models.hooks import record
from sparsecircuits.models.statistics import count_neurons
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.pruning.discretise import smallest_prefix, top_nodes
from sparsecircuits.pruning.node_search import NodeSearch
from sparsecircuits.sparsity.projection import Projector
from sparsecircuits.tasks import get_task
from sparsecircuits.training.config import TrainConfig

SIZED_TASKS = ("if_equals.plain", "lambda_func.plain", "var_if.plain", "while_return_true.plain", "for_while.plain")
"""What small models do, without distractors."""
TOKENS = 16_384
SPARSER, SPARSE, DENSER = 0.04, 0.05, 0.1


def _text(setting: Setting, config: TrainConfig) -> np.ndarray:
    """Validation text of a run's corpus."""
    return prepare_tokens(config.data, Tokenizer.default()).val[: setting.scaled(TOKENS, 2048)]


def _row(variant: str, seed: int, run: Trained) -> Row:
    return {"variant": variant, "seed": seed, "validation loss": run.loss, "nonzeros": run.nonzeros}


@torch.no_grad()
def log_mean_kurtosis(model: SparseTransformer, tokens: np.ndarray) -> float:
    """The log of the mean over tokens of the kurtosis over the channels of the final residual stream (before its
    norm): 1.1 for channels that are normally distributed, larger the fewer channels carry it all."""
    site, found = "final_resid", []
    for inputs, _ in validation_batches(tokens, model.config.n_ctx, 32):
        with record(model, site) as seen:
            model(torch.from_numpy(inputs).to(model.device))
        x = seen[site].double().flatten(0, 1)
        centred = x - x.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1)
        found.append((centred.pow(4).mean(dim=1) / variance.square().clamp(min=1e-30)).cpu())
    return math.log(torch.cat(found).mean().item())


def kurtosis(setting: Setting) -> list[Row]:
    """Kurtosis of the final residual stream: sparser, denser and dense models of one shape."""
    rows: list[Row] = []
    for seed in setting.all_seeds:
        for variant, config in _densities(setting, seed).items():
            run = trained(config, setting, f"{variant}, seed {seed}")
            rows.append(
                _row(variant, seed, run) | {"log mean kurtosis": log_mean_kurtosis(run.model, _text(setting, config))}
            )
    return rows


def _densities(setting: Setting, seed: int) -> dict[str, TrainConfig]:
    return {
        "sparse": config_of(setting, seed),
        "twice the nonzeros": config_of(setting, seed, {"sparsity": {"density": DENSER}}),
        "dense": config_of(setting, seed, dense=True),
    }


def judge_kurtosis(rows: Rows) -> Verdict:
    """Sparse above dense in every seed; and the sparser above the denser."""
    over = differences(rows, "sparse", "dense", "log mean kurtosis")
    denser = differences(rows, "sparse", "twice the nonzeros", "log mean kurtosis")
    if len(over) < FEWEST_SEEDS:
        return unsaid(f"{len(over)} seeds")
    higher = all(d > 0 for d in over)
    reason = f"log of the mean, sparse less dense {spread(over, 2)}, sparse less twice the nonzeros {spread(denser, 2)}"
    return verdict(higher and all(d > 0 for d in denser), higher, reason)


def kurtosis_shipped(setting: Setting) -> list[Row]:
    """The same of the models that ship, each on its own corpus."""
    rows: list[Row] = []
    for subject in setting.subjects:
        setting.tell(subject.name)
        parameters, nonzeros = count_parameters(subject.model)
        value = log_mean_kurtosis(subject.model, _excerpt(setting, subject))
        rows.append({"model": subject.name, "density": nonzeros / parameters, "log mean kurtosis": value})
    return rows


def _excerpt(setting: Setting, subject: Subject) -> np.ndarray:
    tokenizer = subject.model.tokenizer or Tokenizer.default()
    return excerpt(subject.model.corpus or "stdlib", tokenizer, setting.scaled(TOKENS, 2048))


LOWEST, HIGHEST = 2.2, 4.3
"""The paper's range."""


def judge_kurtosis_shipped(rows: Rows) -> Verdict:
    """All in the paper's range; half of them."""
    found = numbers(rows, "log mean kurtosis")
    if not found:
        return unsaid("no model")
    inside = sum(LOWEST <= value <= HIGHEST for value in found)
    words = ", ".join(f"{row['model']} {number(row, 'log mean kurtosis'):.2f}" for row in rows)
    return verdict(inside == len(found), inside >= len(found) / 2, words)


@torch.no_grad()
def dead_neurons(setting: Setting) -> list[Row]:
    """The share of MLP neurons that AbsTopK never picks on the models' own text."""
    rows: list[Row] = []
    for subject in setting.subjects:
        setting.tell(subject.name)
        model, read = subject.model, 0
        with count_neurons(model) as counts:
            for inputs, _ in validation_batches(_excerpt(setting, subject), model.config.n_ctx, 32):
                model(torch.from_numpy(inputs).to(model.device))
                read += inputs.size
        dead = 1 - counts.alive / counts.total
        rows.append({"model": subject.name, "tokens": read, "neurons": counts.total, "dead": dead})
    return rows


def judge_dead_neurons(rows: Rows) -> Verdict:
    """A fifth at least, in every model; in half of them."""
    found = numbers(rows, "dead")
    if not found:
        return unsaid("no model")
    many = sum(share >= 0.2 for share in found)
    words = ", ".join(f"{row['model']} {100 * (number(row, 'dead') or 0):.0f}%" for row in rows)
    return verdict(many == len(found), many >= len(found) / 2, f"never active: {words}")


def agreement(setting: Setting) -> list[Row]:
    """Correlation of losses token by token: a sparse and a dense model, and two dense ones."""
    rows: list[Row] = []
    for seed in setting.all_seeds:
        other = config_of(setting, seed + 1000, dense=True)
        configs = {**_densities(setting, seed), "another dense": other}
        text, losses = _text(setting, other), {}
        for name in ("sparse", "dense", "another dense"):
            losses[name] = text_losses(trained(configs[name], setting, f"{name}, seed {seed}").model, text).numpy()
        pairs = {"sparse and dense": ("sparse", "dense"), "dense and dense": ("dense", "another dense")}
        rows += [
            {"variant": words, "seed": seed, "correlation": float(np.corrcoef(losses[a], losses[b])[0, 1])}
            for words, (a, b) in pairs.items()
        ]
    return rows


def judge_agreement(rows: Rows) -> Verdict:
    """The sparse model agrees with a dense one nearly as much as two dense ones do."""
    mixed, alike = (numbers(where(rows, variant=f"{kind} and dense"), "correlation") for kind in ("sparse", "dense"))
    if min(len(mixed), len(alike)) < FEWEST_SEEDS:
        return unsaid(f"{len(mixed)} seeds")
    gap = statistics.fmean(alike) - statistics.fmean(mixed)
    reason = f"sparse and dense {spread(mixed)}, dense and dense {spread(alike)}"
    return verdict(gap <= 0.03 and statistics.fmean(mixed) >= 0.85, gap <= 0.1, reason)


def size_of_circuits(model: SparseTransformer, setting: Setting, tasks: Sequence[str] = SIZED_TASKS) -> Row:
    """The geometric mean of edges over the tasks that the model does: learned gates, the smallest prefix that holds the
    target, no clean-up. One is added to each, since a task may need none."""
    means, found, config = training_means(model), {}, pruning(setting)
    for name in tasks:
        search = NodeSearch.of(model, get_task(name, model.tokenizer), means, TARGET, config)
        if search.evaluate(torch.ones(search.evaluate.space.size, dtype=torch.bool)).loss > search.goal:
            continue
        tau = search.ranking()
        size = smallest_prefix(tau, search.evaluate, search.goal)
        if size is not None:
            found[name] = len(search.evaluate.edges_between(top_nodes(tau, size)))
    row: Row = {f"edges, {name}": edges for name, edges in found.items()}
    return row | {
        "tasks": len(found),
        "edges": geometric_mean(1 + edges for edges in found.values()) if found else None,
    }


SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Of the sparse run's steps: the dense run that comes nearest to its loss is the one that it is compared with."""


def sparse_dense(setting: Setting) -> list[Row]:
    """Circuits of sparse models and of dense ones of about the same loss."""
    rows: list[Row] = []
    for seed in setting.all_seeds:
        sparse = trained(config_of(setting, seed), setting, f"sparse, seed {seed}")
        shorter = [dataclasses.replace(setting, scale=setting.scale * share) for share in SHARES]
        runs = [trained(config_of(part, seed, dense=True), setting, f"dense, seed {seed}") for part in shorter]
        dense = min(runs, key=lambda run: abs(run.loss - sparse.loss))
        for variant, run in (("sparse", sparse), ("dense", dense)):
            setting.tell(f"pruning {variant}, seed {seed}")
            rows.append(_row(variant, seed, run) | size_of_circuits(run.model, setting))
    return rows


def judge_sparse_dense(rows: Rows) -> Verdict:
    """By the geometric mean of edges over tasks that both do, at a loss that differs by 0.1 nats at most."""
    gaps = differences(rows, "sparse", "dense")
    factors = [math.exp(d) for d in _log_edges(rows, "dense", "sparse")]
    if len(factors) < FEWEST_SEEDS or max(map(abs, gaps)) > 0.1:
        return unsaid(f"{len(factors)} seeds with tasks in common; losses differ by {spread(gaps)}")
    mean = geometric_mean(factors)
    return verdict(min(factors) > 1 and mean >= 10, min(factors) > 1, f"dense over sparse: {spread(factors, 1)} times")


def _log_edges(rows: Rows, variant: str, other: str) -> list[float]:
    """By seed, how much larger one's circuits are than the other's, on tasks that both do: mean log ratio."""
    found = []
    for row in where(rows, variant=variant):
        for beside in where(rows, variant=other, seed=row["seed"]):
            common = [name for name in row.keys() & beside.keys() if name.startswith("edges, ")]
            logs = [math.log((1 + (number(row, n) or 0)) / (1 + (number(beside, n) or 0))) for n in common]
            found += [statistics.fmean(logs)] if logs else []
    return found


def wider(setting: Setting) -> list[Row]:
    """Twice the width with as many nonzeros."""
    rows: list[Row] = []
    for seed in setting.all_seeds:
        narrow = config_of(setting, seed, {"model": {"d_model": 64}, "sparsity": {"density": 3 * SPARSE}})
        nonzeros = 3 * SPARSE * _entries(narrow)
        share = nonzeros / _entries(config_of(setting, seed))
        wide = config_of(setting, seed, {"sparsity": {"density": share}})
        for variant, config in (("narrow", narrow), ("wide", wide)):
            run = trained(config, setting, f"{variant}, seed {seed}")
            rows.append(_row(variant, seed, run) | size_of_circuits(run.model, setting))
    return rows


def _entries(config: TrainConfig) -> int:
    return count_parameters(SparseTransformer(config.model))[0]


def judge_wider(rows: Rows) -> Verdict:
    """Both loss and circuits are smaller in the wide model, in the mean over seeds."""
    return _both(rows, "wide", "narrow", losses_fall=True, circuits_fall=True)


def more_nonzeros(setting: Setting) -> list[Row]:
    """More nonzeros in a model of one width."""
    rows: list[Row] = []
    for seed in setting.all_seeds:
        for variant, density in (("fewer", SPARSER), ("more", DENSER)):
            run = trained(config_of(setting, seed, {"sparsity": {"density": density}}), setting, f"{variant}, {seed}")
            rows.append(_row(variant, seed, run) | size_of_circuits(run.model, setting))
    return rows


def judge_more_nonzeros(rows: Rows) -> Verdict:
    """The loss is smaller and circuits are larger with more nonzeros, in the mean over seeds."""
    return _both(rows, "more", "fewer", losses_fall=True, circuits_fall=False)


def _both(rows: Rows, variant: str, other: str, *, losses_fall: bool, circuits_fall: bool) -> Verdict:
    losses, edges = differences(rows, variant, other), _log_edges(rows, variant, other)
    if min(len(losses), len(edges)) < FEWEST_SEEDS:
        return unsaid(f"{len(losses)} seeds, {len(edges)} with tasks in common")
    right = [(statistics.fmean(d) < 0) == falls for d, falls in ((losses, losses_fall), (edges, circuits_fall))]
    reason = f"{variant} less {other}: loss {spread(losses)} nats, log of edges {spread(edges, 2)}"
    return verdict(all(right), any(right), reason)


def sparse_after(setting: Setting) -> list[Row]:
    """A dense model cut to the same L0 by magnitude once it is trained, beside one that is trained sparse."""
    rows: list[Row] = []
    for seed in setting.all_seeds:
        config = config_of(setting, seed)
        sparse = trained(config, setting, f"sparse, seed {seed}")
        dense = trained(config_of(setting, seed, dense=True), setting, f"dense, seed {seed}")
        text = _text(setting, config)
        cut = copy.deepcopy(dense.model)
        Projector(cut, config.sparsity)(1.0)
        for variant, model in (("trained sparse", sparse.model), ("cut afterwards", cut), ("dense", dense.model)):
            rows.append(
                {
                    "variant": variant,
                    "seed": seed,
                    "validation loss": text_loss(model, text),
                    "nonzeros": count_parameters(model)[1],
                }
            )
    return rows


def judge_sparse_after(rows: Rows) -> Verdict:
    """Trained sparse has the smaller loss in every seed."""
    found = differences(rows, "cut afterwards", "trained sparse")
    if len(found) < FEWEST_SEEDS:
        return unsaid(f"{len(found)} seeds")
    reason = f"cut by magnitude less trained sparse: {spread(found)} nats"
    return verdict(min(found) > 0, statistics.fmean(found) > 0, reason)


def _variants(setting: Setting, changes: dict[str, Changes]) -> list[Row]:
    """Validation losses of the recipe with other fields, by seed; None where a run diverges."""
    rows: list[Row] = []
    for seed in setting.all_seeds:
        for variant, fields in changes.items():
            try:
                run = trained(config_of(setting, seed, fields), setting, f"{variant}, seed {seed}")
            except UserError as error:
                rows.append({"variant": variant, "seed": seed, "validation loss": None, "words": str(error)})
                continue
            rows.append(_row(variant, seed, run))
    return rows


def _worse(rows: Rows, variant: str, base: str = "the recipe") -> Verdict:
    """Worse by more than the seeds' spread: in every seed (or it diverges there); in the mean."""
    diverged = sum(number(row, "validation loss") is None for row in where(rows, variant=variant))
    found = differences(rows, variant, base)
    if len(found) + diverged < FEWEST_SEEDS:
        return unsaid(f"{len(found)} seeds")
    words = f"{variant} less {base}: {spread(found)} nats" if found else f"{variant} diverges"
    reason = words + (f"; {diverged} seed(s) diverge" if diverged and found else "")
    return verdict(all(d > 0 for d in found), not found or statistics.fmean(found) > 0, reason)


def hard_concrete(setting: Setting) -> list[Row]:
    """L0 regularisation with HardConcrete gates against top-k."""
    return _variants(setting, {"the recipe": {}, "HardConcrete gates": {"sparsity": {"sparsifier": "hard_concrete"}}})


def judge_hard_concrete(rows: Rows) -> Verdict:
    """HardConcrete has the larger loss, with no fewer nonzeros to show for it."""
    fewer = differences(rows, "HardConcrete gates", "the recipe", "nonzeros")
    base = numbers(where(rows, variant="the recipe"), "nonzeros")
    if fewer and base and statistics.fmean(fewer) < -0.1 * statistics.fmean(base):
        return unsaid(f"its gates close beyond the target: {statistics.fmean(fewer):.0f} nonzeros less")
    return _worse(rows, "HardConcrete gates")


def recipe_gradient(setting: Setting) -> list[Row]:
    """The gradient as it is, and clipped to 1, instead of divided by its root-mean-square."""
    changes = {how: {"optimizer": {"gradient": name}} for how, name in (("as it is", "none"), ("clipped", "clip"))}
    return _variants(setting, {"the recipe": {}, **changes})


def judge_recipe_gradient(rows: Rows) -> Verdict:
    """The gradient as it is does worse."""
    return _worse(rows, "as it is")


def recipe_floor(setting: Setting) -> list[Row]:
    """No floor under the nonzeros of a unit."""
    return _variants(setting, {"the recipe": {}, "no floor": {"sparsity": {"floor": 0}}})


def judge_recipe_floor(rows: Rows) -> Verdict:
    """The floor costs loss."""
    return _worse(rows, "the recipe", "no floor")


def recipe_anneal(setting: Setting) -> list[Row]:
    """Sparse from the first step, instead of annealed from dense."""
    at_once = {"sparsity": {"anneal": "linear", "anneal_start": 0.0, "anneal_end": 0.0}}
    return _variants(setting, {"the recipe": {}, "no anneal": at_once})


def judge_recipe_anneal(rows: Rows) -> Verdict:
    """Sparse at once does worse."""
    return _worse(rows, "no anneal")


def recipe_sharkfin(setting: Setting) -> list[Row]:
    """The learning rate without the factor that keeps it small while weights are dense."""
    return _variants(setting, {"the recipe": {}, "no sharkfin": {"optimizer": {"sharkfin": False}}})


def judge_recipe_sharkfin(rows: Rows) -> Verdict:
    """Without it does worse."""
    return _worse(rows, "no sharkfin")
