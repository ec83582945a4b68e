"""Seeds: 64 bits everywhere, and refused in one line beyond."""

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.circuits.run_with import run_with
from sparsecircuits.data.batches import BatchSampler
from sparsecircuits.data.corpora import load_corpus
from sparsecircuits.models.generation import generate
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.seeds import checked_seed, derived_seed
from sparsecircuits.training.config import TrainConfig

WRONG = (-1, 2**64, 10**400, 1.5, "1", True, None)


@pytest.mark.parametrize("seed", WRONG)
def test_a_seed_is_a_64_bit_number_wherever_it_is_taken(seed, handmade_run):
    model, task = sc.load_model(handmade_run), sc.get_task("if_equals")
    takers = [
        checked_seed,
        lambda seed: TrainConfig(seed=seed),
        lambda seed: PruneConfig(seed=seed),
        lambda seed: task.pairs("train", 2, seed),
        lambda seed: load_corpus("tinypython:1", seed=seed),
        lambda seed: BatchSampler(torch.arange(100).numpy(), 4, 2, seed),
        lambda seed: sc.faithfulness(model, None, task, seed=seed),
        lambda seed: run_with(model, None, None, seed=seed),
    ]
    if seed is not None:  # generation without a seed draws anew each time
        takers.append(lambda seed: generate(model, "x", 1, temperature=1.0, seed=seed))
    for take in takers:
        with pytest.raises(sc.UserError, match="a seed is a whole number from 0 to 2\\^64 - 1"):
            take(seed)


def test_the_largest_seed_works_everywhere(handmade_run):
    seed = 2**64 - 1
    assert TrainConfig(seed=seed).seed == PruneConfig(seed=seed).seed == seed
    assert load_corpus("tinypython:1", seed=seed)
    assert BatchSampler(torch.arange(100).numpy(), 4, 2, seed).next()[0].shape == (2, 4)
    assert generate(sc.load_model(handmade_run), "x", 1, temperature=1.0, seed=seed)


def test_seeds_of_steps_fit_and_differ():
    seeds = {derived_seed(seed, step) for seed in (0, 1, 2**32, 2**32 + 1, 2**64 - 1) for step in (0, 1, 1000)}
    assert len(seeds) == 15
    assert derived_seed(3, 7) == (3 << 32) + 7
    for seed in seeds:
        torch.Generator().manual_seed(seed)
