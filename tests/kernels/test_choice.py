"""`kernels.use`: which implementation of an operator runs."""

import contextvars
import threading
from functools import partial

import pytest
import torch
from torch.profiler import profile

from heldweights import held, hold
from sparsecircuits import kernels
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.transformer import SparseTransformer

CONFIG = ModelConfig(vocab_size=40, n_ctx=16, n_layer=2, d_model=32, d_head=8, sink=True)
IDS = torch.arange(32).view(2, 16)


def ours(function):
    """Names of this package's operators that a call runs."""
    with profile() as seen:
        function()
    return {event.key.partition("::")[2] for event in seen.key_averages() if event.key.startswith("sparsecircuits::")}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SparseTransformer(CONFIG)


def gradients(model):
    model.zero_grad()
    loss = model.loss(IDS, IDS)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def test_the_reference_runs_no_kernel_and_computes_the_same(model):
    assert {"abstopk", "rms_norm", "causal_attention", "gelu_abstopk"} <= ours(lambda: gradients(model))
    expected = gradients(model)
    with kernels.use("reference"):
        assert ours(lambda: gradients(model)) == set()
        torch.testing.assert_close(gradients(model), expected, rtol=1e-4, atol=1e-5)


def test_weights_held_as_nonzeros_have_references_too(model):
    block = model.block(0)
    hold(block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    assert {"held_attention", "held_mlp"} <= ours(lambda: gradients(model))
    expected = gradients(model)
    table, ids = held(40, 8, 0.3), torch.arange(5)
    rows = table.embed(ids)
    with kernels.use("reference"):
        assert ours(lambda: gradients(model)) == set()
        assert ours(lambda: table.linear(table.embed(ids))) == set()
        torch.testing.assert_close(table.embed(ids), rows)
        torch.testing.assert_close(gradients(model), expected, rtol=1e-4, atol=1e-5)


def test_every_operator_can_be_chosen_and_projection_too():
    assert {"abstopk", "gate_channels", "linear", "linear_cross_entropy", "project_topk_"} <= set(kernels.operators())
    weight = torch.randn(20, 30)
    expected = kernels.project_topk_(weight.clone(), 100, 3)
    with kernels.use("reference"):
        assert ours(lambda: kernels.project_topk_(weight.clone(), 100, 3)) == set()
        assert torch.equal(kernels.project_topk_(weight.clone(), 100, 3), expected)


def test_one_operator_is_replaced_and_is_back_after_an_error():
    x = torch.randn(3, 8)
    before = kernels.abstopk(x, 2)

    def fails():
        with kernels.use("auto", abstopk=lambda x, k: x + k):
            assert torch.equal(kernels.abstopk(x, 2), x + 2)
            assert "rms_norm" in ours(lambda: kernels.rms_norm(x, torch.ones(8)))
            with kernels.use("reference"):  # the whole choice, not only what the outer one left
                assert torch.equal(kernels.abstopk(x, 2), before)
            assert torch.equal(kernels.abstopk(x, 2), x + 2)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fails()
    assert torch.equal(kernels.abstopk(x, 2), before)
    assert "abstopk" in ours(lambda: kernels.abstopk(x, 2))


def test_another_thread_keeps_its_own_choice():
    x, found = torch.randn(3, 8), []
    with kernels.use("auto", abstopk=lambda x, k: x):
        for call in (kernels.abstopk, partial(contextvars.copy_context().run, kernels.abstopk)):
            thread = threading.Thread(target=lambda call=call: found.append(call(x, 2)))
            thread.start()
            thread.join()
    assert (found[0] != 0).sum() == 6
    assert torch.equal(found[1], x)


@pytest.mark.parametrize(("choice", "own"), [("fastest", {}), ("auto", {"abstop": abs})])
def test_unknown_names_are_refused(choice, own):
    with pytest.raises(ValueError, match=r"no (implementation|operator) .*; there are"), kernels.use(choice, **own):
        pass
