"""Recording and intervening by name."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

import sparsecircuits as sc
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.hooks import hook_points
from sparsecircuits.models.transformer import SparseTransformer

IDS = torch.arange(12).view(2, 6)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=40, n_ctx=16, n_layer=2, d_model=32, d_head=8, n_head=3)
    return SparseTransformer(config).eval()


def test_names_and_layouts(model):
    with torch.no_grad(), sc.record(model) as seen:
        model(IDS)
    assert seen["1.attn.q"].shape == (2, 6, 24)  # heads side by side
    assert seen["0.mlp.post_act"].shape == (2, 6, 128)
    assert seen["final_resid"].shape == (2, 6, 32)
    assert set(seen) == set(hook_points(model))
    torch.testing.assert_close(seen["0.resid_in"] + seen["0.attn.resid_delta"], seen["0.resid_mid"])


def test_abstopk_acts_at_its_sites(model):
    with torch.no_grad(), sc.record(model) as seen:
        model(IDS)
    assert (seen["0.mlp.post_act"].count_nonzero(dim=-1) <= 32).all()
    assert (seen["0.attn.q"].count_nonzero(dim=-1) <= 6).all()
    assert (seen["0.attn.y"] != 0).float().mean() > 0.3  # none on the attention's output


def test_what_is_recorded_does_not_change_with_the_pass(model):
    """An intervention that writes into its argument, at each site."""
    with torch.no_grad(), sc.record(model) as plain:
        model(IDS)
    for name in hook_points(model):
        with torch.no_grad(), sc.record(model) as seen, sc.intervene(model, {name: lambda x: x.zero_()}):
            changed = model(IDS)
        assert seen[name].equal(plain[name]), name
        with torch.no_grad(), sc.intervene(model, {name: torch.zeros_like}):
            assert model(IDS).equal(changed), name


def test_sites_are_selected_by_name_too(model):
    names = {"0.mlp.post_act", "1.attn.q"}
    with torch.no_grad(), sc.record(model, names) as seen, sc.record(model, []) as nothing:
        model(IDS)
    assert set(seen) == names
    assert not nothing
    with pytest.raises(sc.UserError, match=r"no hook point '0\.mlp'"), sc.record(model, ["0.mlp"]):
        pass


def test_a_pattern_selects_whole_names(model):
    with torch.no_grad(), sc.record(model, r"\d+\.attn\.q") as seen:
        model(IDS)
    assert sorted(seen) == ["0.attn.q", "1.attn.q"]


def test_intervention_reaches_what_follows_and_leaves_nothing_behind(model):
    before = model(IDS)
    with sc.intervene(model, {"0.mlp.post_act": torch.zeros_like}), sc.record(model, "0.mlp.resid_delta") as seen:
        changed = model(IDS)
    bias = model.block(0).mlp.c_proj.bias
    torch.testing.assert_close(seen["0.mlp.resid_delta"], bias.expand_as(seen["0.mlp.resid_delta"]))
    assert not torch.equal(before, changed)
    assert torch.equal(model(IDS), before)


def test_interventions_nest_outer_first(model):
    with (
        sc.intervene(model, {"final_resid": lambda x: x * 0 + 2}),
        sc.intervene(model, {"final_resid": lambda x: x + 1}),
        sc.record(model, "final_resid") as seen,
    ):
        model(IDS)
    assert (seen["final_resid"] == 3).all()


def test_nothing_is_left_after_an_exception(model):
    before = model(IDS)

    def broken(x):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), sc.intervene(model, {"0.attn.q": broken}):
        model(IDS)
    assert torch.equal(model(IDS), before)


def test_gradients_pass_through_an_intervention(model):
    gate = torch.ones(128, requires_grad=True)
    with sc.intervene(model, {"0.mlp.post_act": lambda x: x * gate}):
        model(IDS).square().sum().backward()
    assert gate.grad.abs().sum() > 0


def test_mistakes_are_named(model):
    with (
        pytest.raises(sc.UserError, match=r"no hook point '0\.attn\.z'"),
        sc.intervene(model, {"0.attn.z": torch.relu}),
    ):
        pass
    with pytest.raises(sc.UserError, match="no hook point matches"), sc.record(model, "nothing"):
        pass
    with pytest.raises(sc.UserError, match="not a regular expression"), sc.record(model, "("):
        pass
    with pytest.raises(ValueError, match="turned"), sc.intervene(model, {"0.attn.q": lambda x: x[:, :1]}):
        model(IDS)


@pytest.mark.no_shapecheck
def test_compiles(model):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(IDS), model(IDS), atol=1e-5, rtol=1e-4)


@pytest.mark.no_shapecheck
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_are_recorded_and_changed(model, backend):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        plain = model(IDS)
        torch.testing.assert_close(compiled(IDS), plain, atol=1e-5, rtol=1e-4)
        for handle in (model, compiled):
            with sc.record(handle, "0.mlp.post_act") as seen:
                compiled(IDS)
            assert seen["0.mlp.post_act"].shape == (2, 6, 128)
            with sc.intervene(handle, {"final_resid": torch.zeros_like}):
                changed = compiled(IDS)
            assert not torch.allclose(changed, plain)
            torch.testing.assert_close(compiled(IDS), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.no_shapecheck
def test_a_model_compiled_inside_forgets_the_intervention(model):
    torch._dynamo.reset()
    with torch.no_grad():
        plain = model(IDS)
        with sc.intervene(model, {"final_resid": torch.zeros_like}):
            compiled = torch.compile(model, backend="eager")
            assert not torch.allclose(compiled(IDS), plain)
        torch.testing.assert_close(compiled(IDS), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(model, reentrant):
    def gradients(run):
        model.zero_grad()
        gate = torch.full((128,), 0.5, requires_grad=True)
        with sc.intervene(model, {"0.mlp.post_act": lambda x: x * gate}), sc.record(model, "0.mlp.post_act") as seen:
            run().square().sum().backward()
        return gate.grad, model.wte.weight.grad.clone(), seen["0.mlp.post_act"].detach()

    def checkpointed():
        x, block = model.wte(IDS), model.block(0)
        x = checkpoint(lambda x: block(x, None, None, 0), x, use_reentrant=reentrant)
        return model.ln_f(x)

    expected = gradients(lambda: model.ln_f(model.block(0)(model.wte(IDS), None, None, 0)))
    for ours, plain in zip(gradients(checkpointed), expected, strict=True):
        torch.testing.assert_close(ours, plain)


def test_threads_do_not_see_each_other(model):
    """Each thread scales a site by its own factor and records its own input's activations."""
    inputs = [torch.full((1, 5), n) for n in range(6)]
    with torch.no_grad():
        alone = []
        for n, ids in enumerate(inputs):
            with sc.intervene(model, {"0.resid_mid": lambda x, n=n: x * (n + 1)}), sc.record(model) as seen:
                logits = model(ids)
            alone.append((logits, dict(seen)))
    gate = threading.Barrier(len(inputs))

    def work(n):
        gate.wait()
        with torch.no_grad():
            for _ in range(5):
                with sc.intervene(model, {"0.resid_mid": lambda x: x * (n + 1)}), sc.record(model) as seen:
                    logits = model(inputs[n])
                torch.testing.assert_close(logits, alone[n][0])
                for name, tensor in seen.items():
                    torch.testing.assert_close(tensor, alone[n][1][name])
        return True

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(work, range(len(inputs))))
    assert not any(site._forward_hooks for site in hook_points(model).values())


@given(st.permutations(["0.attn.q", "1.mlp.post_act", "final_resid", "0.resid_mid"]), st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_any_nesting_with_any_failure_leaves_nothing(order, failing):
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=40, n_ctx=16, n_layer=2, d_model=32, d_head=8, n_head=3)
    model = SparseTransformer(config).eval()
    before = model(IDS)

    def broken(_):
        raise ZeroDivisionError

    with contextlib.suppress(ZeroDivisionError), contextlib.ExitStack() as stack:
        for depth, name in enumerate(order):
            stack.enter_context(sc.intervene(model, {name: broken if depth == failing else torch.relu}))
        model(IDS)
        assert failing == 4
    assert torch.equal(model(IDS), before)
    assert not any(site._forward_hooks for site in hook_points(model).values())
