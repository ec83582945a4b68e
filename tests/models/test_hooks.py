"""Recording and intervening by name."""

import pytest
import torch

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


def test_compiles(model):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(IDS), model(IDS), atol=1e-5, rtol=1e-4)
