"""Steps between two dense gradients: the support stays, the numbers are those of a masked dense step."""

import dataclasses
import itertools

import pytest
import torch

import sparsecircuits as sc
from heldruns import EVERY, HELD, assert_same, interrupted, run_of, small_tokens, take, with_sparsity
from sparsecircuits.models.transformer import sparse_matrices
from sparsecircuits.sparsity.projection import budget
from sparsecircuits.sparsity.schedules import SparsityConfig, density_at
from sparsecircuits.training.optimizer import gradient_rms


@pytest.fixture(scope="module")
def tokens():
    return small_tokens()


def test_computing_with_the_nonzeros_is_computing_with_the_masked_matrix(tokens, tmp_path):
    ours, masked = (run_of(HELD, tokens, tmp_path, direct=direct) for direct in (True, False))
    for run in (ours, masked):
        assert run.held.direct is (run is ours)
        list(take(run, HELD.steps))
    assert ours.held.names, "nothing was held"
    for (name, one), other in zip(ours.model.named_parameters(), masked.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)
        assert torch.equal(one != 0, other != 0), name


def test_between_dense_gradients_the_support_stays_and_at_them_it_is_the_budget_s(tokens, tmp_path):
    run = run_of(HELD, tokens, tmp_path)
    before, changed, held = {}, 0, 0
    for step, support in enumerate(take(run, HELD.steps)):
        if step % EVERY == 0:
            for target in run.projector.targets:
                share = density_at(step / HELD.steps, target.density, HELD.sparsity)
                assert int(support[target.name].sum()) == budget(sparse_matrices(run.model)[target.name], share)
            changed += any(not torch.equal(support[name], before[name]) for name in before)
        else:
            assert all(torch.equal(support[name], before[name]) for name in run.held.names)
            held += bool(run.held.names)
        before = support
    assert changed > 2
    assert held > 8


def test_tied_and_biased_models_and_accumulation_hold_too(tokens, tmp_path):
    model = dataclasses.replace(HELD.model, tied_unembed=True, positions="concat_learned", d_pos_emb=8)
    config = dataclasses.replace(
        HELD, model=model, accumulate=2, sparsity=dataclasses.replace(HELD.sparsity, sparse_biases=True, anneal_end=0.1)
    )
    ours, masked = (run_of(config, tokens, tmp_path, direct=direct) for direct in (True, False))
    for run in (ours, masked):
        list(take(run, 10))
    for one, other in zip(ours.model.parameters(), masked.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("start", ["uniform", "erk"])
def test_a_sparse_start_is_on_the_budget_at_every_step_and_exchanges_places(tokens, tmp_path, start):
    run = run_of(with_sparsity(start=start), tokens, tmp_path)
    matrices = sparse_matrices(run.model)
    supports = [{name: m.detach() != 0 for name, m in matrices.items()}, *take(run, HELD.steps)]
    for support in supports:
        for target in run.projector.targets:
            assert int(support[target.name].sum()) == budget(matrices[target.name], target.density)
    held = run.held.names  # erk leaves a small matrix denser than what is held
    assert len(held) >= 8
    moved = [any(not torch.equal(a[name], b[name]) for name in held) for a, b in itertools.pairwise(supports)]
    assert not any(m for step, m in enumerate(moved) if step % EVERY)
    assert sum(moved) > 3


@pytest.mark.parametrize(("saved", "start"), [(9, "dense"), (13, "dense"), (16, "dense"), (6, "uniform"), (13, "erk")])
def test_a_run_resumed_between_dense_gradients_ends_bit_equal(tokens, tmp_path, saved, start, monkeypatch):
    config = dataclasses.replace(with_sparsity(start=start), checkpoint_every=saved)
    whole = sc.train(config, tmp_path / "whole", tokens=tokens)

    assert_same(whole, interrupted(config, saved + 1, tmp_path / "run", tokens, monkeypatch))


def test_the_end_is_on_the_budget(tokens, tmp_path):
    model = sc.train(HELD, tmp_path / "run", tokens=tokens)
    for name, matrix in sparse_matrices(model).items():
        assert int(matrix.count_nonzero()) == budget(matrix, 0.08), name


def test_the_rest_of_a_sampled_gradient_is_estimated():
    whole, sampled = torch.full((10,), 3.0), torch.full((5,), 2.0)
    assert gradient_rms([whole], 10) == pytest.approx(3.0)
    # a quarter of 80 squares is known: 90 + 80 over 110 entries
    assert gradient_rms([whole], 110, [sampled], share=0.25) == pytest.approx((170 / 110) ** 0.5)


def test_a_wait_must_be_positive():
    with pytest.raises(sc.UserError, match="regrow_every must be at least 1"):
        SparsityConfig(regrow_every=0)
