"""A pass may start and stop at any of the 2L + 1 boundaries of the residual stream."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from randommodels import bits, configs, random_model
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.hooks import hook_points
from sparsecircuits.models.transformer import KVCache, SparseTransformer

CONFIG = ModelConfig(vocab_size=40, n_ctx=12, n_layer=3, d_model=16, d_head=4, positions="concat", d_pos_emb=5)


def some_ids(config: ModelConfig, seed: int = 0) -> torch.Tensor:
    return torch.randint(config.vocab_size, (3, 9), generator=torch.Generator().manual_seed(seed))


def in_steps(model: SparseTransformer, ids: torch.Tensor, *stops: int, cache: KVCache | None = None) -> torch.Tensor:
    """Logits of a pass that stops at some boundaries and goes on from there."""
    x, positions = model.embed(ids, 0 if cache is None else cache.length)
    for start, stop in zip((0, *stops), (*stops, model.last_boundary), strict=True):
        x = model.between(x, start, stop, positions, cache)
    return model.read_out(x, ids)


def same(x: torch.Tensor, y: torch.Tensor) -> bool:
    return torch.equal(bits(x), bits(y))


@settings(max_examples=30, deadline=None)
@given(configs(), st.integers(0, 2**31))
def test_stopping_anywhere_changes_no_bit(config, seed):
    model, ids = random_model(config, seed), some_ids(config, seed)
    with torch.no_grad(), sc.record(model) as plain:
        logits = model(ids)
    boundaries = range(model.last_boundary + 1)
    for stops in ((), *((stop,) for stop in boundaries), tuple(boundaries)):
        with torch.no_grad(), sc.record(model) as seen:
            assert same(in_steps(model, ids, *stops), logits), stops
        assert set(seen) == set(plain) == set(hook_points(model))
        assert all(same(seen[name], plain[name]) for name in plain), stops


def test_boundaries_lie_before_and_after_the_halves():
    model, ids = random_model(CONFIG), some_ids(CONFIG)
    with torch.no_grad(), sc.record(model) as seen:
        model(ids)
        x, positions = model.embed(ids)
        found = [model.between(x, 0, stop, positions) for stop in range(model.last_boundary + 1)]
    names = ["0.resid_in"] + [f"{layer}.{site}" for layer in range(3) for site in ("resid_mid", "resid_out")]
    assert len(found) == len(names) == 7
    for name, stream in zip(names, found, strict=True):
        assert same(stream, seen[name]), name
    assert same(found[-1], seen["final_resid"])


@pytest.mark.parametrize("stop", range(7))
def test_only_what_lies_between_runs(stop):
    model, ids = random_model(CONFIG), some_ids(CONFIG)
    halves = [f"{layer}.{half}.resid_delta" for layer in range(3) for half in ("attn", "mlp")]
    for start in range(stop + 1):
        with torch.no_grad(), sc.record(model, r".*\.resid_delta") as seen:
            x, positions = model.embed(ids)
            model.between(x, start, stop, positions)
        assert sorted(seen) == sorted(halves[start:stop])


def test_a_changed_stream_goes_on_as_an_intervention_there_does():
    model, ids = random_model(CONFIG), some_ids(CONFIG)
    with torch.no_grad():
        x, positions = model.embed(ids)
        changed = model.between(-2 * model.between(x, 0, 3, positions), 3, 6, positions)
        with sc.intervene(model, {"1.resid_mid": lambda x: -2 * x}):
            assert same(model.read_out(changed, ids), model(ids))


def test_halves_fill_and_read_the_cache():
    model, ids = random_model(CONFIG), some_ids(CONFIG)
    whole, halved = KVCache.empty(3), KVCache.empty(3)
    with torch.no_grad():
        for part in (ids[:, :4], ids[:, 4:5], ids[:, 5:]):
            start = whole.length
            assert same(in_steps(model, part, 1, 2, 5, cache=halved), model(part, whole)), start
    assert halved.length == whole.length == 9
    assert all(same(one, other) for one, other in zip(halved.keys, whole.keys, strict=True))


@pytest.mark.parametrize("stops", [(), (3,), (1, 2, 3, 4, 5)])
def test_gradients_are_the_same_in_steps_and_under_checkpointing(stops):
    model, ids = random_model(CONFIG), some_ids(CONFIG)

    def gradients(run) -> dict[str, torch.Tensor]:
        model.zero_grad()
        run().square().sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients(lambda: model(ids))
    for again in (False, True):
        model.checkpoint_activations = again
        stepwise = gradients(lambda: in_steps(model, ids, *stops))
        assert set(stepwise) == set(plain)
        assert all(same(stepwise[name], plain[name]) for name in plain)


def test_whole_layers_run_as_modules():
    """What hangs on a layer as a module (compiled code, FSDP's gathering) acts in every pass over all of it."""
    model, ids, called = random_model(CONFIG), some_ids(CONFIG), []
    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, layer=layer: called.append(layer))
    with torch.no_grad():
        in_steps(model, ids)
        assert called == [0, 1, 2]
        in_steps(model, ids, 3)  # in the middle of layer 1
        assert called == [0, 1, 2, 0, 2]


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 7), (3, 2), (7, 7)])
def test_boundaries_that_there_are_not(start, stop):
    model, ids = random_model(CONFIG), some_ids(CONFIG)
    x, positions = model.embed(ids)
    with pytest.raises(ValueError, match=rf"no pass from boundary {start} to {stop}: they go from 0 to 6"):
        model.between(x, start, stop, positions)
