"""The MLP in one operator gives what its parts give one after the other: outputs, choice, all gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from heldweights import held, hold, operators, watched_in_every_way
from sparsecircuits.kernels import abstopk_reference, gelu_abstopk, held_mlp
from sparsecircuits.kernels.held_mlp import _held_mlp, _held_mlp_backward, _packed, _unpacked, takes
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import MLP


class Case:
    """An MLP and its input; `biases`: how many of the two layers have one."""

    def __init__(self, tokens, inputs, units, outputs, density, biases=2, dtype=torch.float32, levels=None):
        self.fc, self.proj = held(units, inputs, density, dtype), held(outputs, units, density, dtype)
        draw = torch.randn if levels is None else lambda *s, dtype: torch.randint(-levels, levels + 1, s).to(dtype)
        self.x = draw(tokens, inputs, dtype=dtype).requires_grad_()
        self.fc_bias = draw(units, dtype=dtype).requires_grad_() if biases > 0 else None
        self.proj_bias = torch.randn(outputs, dtype=dtype).requires_grad_() if biases > 1 else None
        self.grad = torch.randn(tokens, outputs, dtype=dtype)
        if levels is not None:  # few different numbers: many equal activations
            with torch.no_grad():
                self.fc.values.sign_()

    @property
    def leaves(self):
        given = (self.x, self.fc.values, self.fc_bias, self.proj.values, self.proj_bias)
        return [leaf for leaf in given if leaf is not None]

    def fused(self, k):
        return held_mlp(self.x, self.fc, self.fc_bias, self.proj, self.proj_bias, k)

    def unfused(self, k):
        before = self.fc.linear(self.x, self.fc_bias)
        return self.proj.linear(F.gelu(before) if k is None else gelu_abstopk(before, k), self.proj_bias)

    def gradients(self, output):
        return torch.autograd.grad(output, self.leaves, self.grad)

    def arguments(self, k):
        p, q = self.fc.pattern, self.proj.pattern
        lists = (p.row_starts, p.columns, q.column_starts, q.rows, q.order)
        return self.x, self.fc.values, self.fc_bias, self.proj.values, self.proj_bias, *lists, q.shape[0], k

    def agrees(self, k):
        ours, theirs = self.fused(k), self.unfused(k)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        for one, other in zip(self.gradients(ours), self.gradients(theirs), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
        return ours


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.integers(1, 200),
    inputs=st.integers(1, 40),
    units=st.integers(1, 90),
    outputs=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    share=st.floats(0, 1),
    biases=st.integers(0, 2),
    levels=st.sampled_from([None, None, 1, 3]),
    seed=st.integers(0, 99),
)
def test_outputs_and_gradients_are_those_of_the_parts(
    tokens, inputs, units, outputs, density, share, biases, levels, seed
):
    torch.manual_seed(seed)
    case = Case(tokens, inputs, units, outputs, density, biases, levels=levels)
    case.agrees(1 + round(share * (units - 1)))


@pytest.mark.parametrize("k", [1, 2, 75, 299, 300, 301, None])
def test_wide_ones_and_every_kind_of_k(k):
    torch.manual_seed(0)
    Case(333, 50, 300, 40, 0.1).agrees(k)


def kept_by(case, k):
    return _unpacked(_held_mlp(*case.arguments(k))[1], len(case.x))


@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize("k", [1, 10, 100, 199])
def test_the_entries_kept_are_the_same_ties_included(levels, k):
    torch.manual_seed(1)
    case = Case(150, 9, 200, 8, 0.3, levels=levels)
    before = case.fc.linear(case.x, case.fc_bias)
    activations = gelu_abstopk(F.pad(before, (0, 1)), 200)[:, :200]  # all of them, and not the zero beside them
    kept = kept_by(case, k)
    assert torch.equal(kept, abstopk_reference(activations, k)[1])
    assert torch.equal(activations * kept, gelu_abstopk(before, k))


def test_many_close_but_different_magnitudes():
    """More than a handful share the upper half of their bits with the k-th largest."""
    torch.manual_seed(0)
    case = Case(70, 1, 120, 5, 1.0)
    with torch.no_grad():
        case.x.fill_(1.0)
        case.fc.values.fill_(0.0)
        case.fc_bias.copy_(5 + 1e-5 * torch.randperm(120))
    for k in (1, 40, 119):
        assert torch.equal(kept_by(case, k).nonzero()[:, 1].view(70, k)[0].sort().values,
                           case.fc_bias.topk(k).indices.sort().values)  # fmt: skip
        case.agrees(k)


def test_not_a_number_stays_in_its_token():
    torch.manual_seed(0)
    case = Case(100, 12, 60, 7, 0.4)
    clean = case.fused(15).detach()
    with torch.no_grad():
        case.x[3] = torch.nan
        case.x[5] = torch.inf
    got = case.fused(15).detach()
    others = [t for t in range(100) if t not in (3, 5)]
    assert torch.equal(got[others], clean[others])
    assert got[3].isnan().any()


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    case, results = Case(1000, 30, 150, 20, 0.1), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        output = case.fused(37)
        results.append([output, *case.gradients(output)[:4]])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_shapes_of_batches_and_no_tokens_at_all():
    torch.manual_seed(0)
    case = Case(12, 9, 20, 7, 0.4)
    folded = held_mlp(case.x.view(3, 4, 9), case.fc, case.fc_bias, case.proj, case.proj_bias, 5)
    assert torch.equal(folded.view(12, 7), case.fused(5))
    empty = Case(0, 9, 20, 7, 0.4)
    output = empty.fused(5)
    assert output.shape == (0, 7)
    assert all((g == 0).all() for g in empty.gradients(output))
    with pytest.raises(ValueError, match="k must be positive"):
        case.fused(0)


def test_double_precision_goes_by_the_reference():
    torch.manual_seed(0)
    case = Case(5, 6, 8, 4, 0.6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *_: case.fused(3), case.leaves)


def test_what_is_kept_is_a_bit_for_each():
    mask = torch.rand(130, 11) < 0.5
    assert _packed(mask).shape == (3, 11, 8)
    assert torch.equal(_unpacked(_packed(mask), 130), mask)
    case = Case(128, 6, 8, 4, 0.6)
    ours = _held_mlp(*case.arguments(3))[1]
    assert torch.equal(_packed(_unpacked(ours, 128)), ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_keep_the_library_s_rules(dtype):
    torch.manual_seed(0)
    case = Case(70, 6, 12, 4, 0.5, dtype=dtype)
    torch.library.opcheck(_held_mlp, case.arguments(5))
    x, fc_values, fc_bias, proj_values, _, *lists, _, _ = (
        a.detach() if isinstance(a, torch.Tensor) else a for a in case.arguments(5)
    )
    kept = _held_mlp(*case.arguments(5))[1]
    torch.library.opcheck(_held_mlp_backward, (case.grad, kept, x, fc_values, fc_bias, proj_values, *lists))


def mlp(**fields):
    torch.manual_seed(0)
    module = MLP(ModelConfig(n_layer=1, d_model=32, d_head=8, **fields))
    hold(module.c_fc, module.c_proj)
    return module


FUSED = "sparsecircuits::held_mlp"


def test_a_model_s_mlp_is_one_operator_unless_someone_looks_inside():
    module = mlp()
    watched_in_every_way(module, (module.c_fc, module.post_act, module.c_proj), torch.randn(2, 40, 32), FUSED)


def test_recording_sees_the_activations():
    module, x = mlp(), torch.randn(2, 40, 32)
    with record(module, "post_act") as recorded:
        module(x)
    k = module.post_act.k
    assert torch.equal(recorded["post_act"], gelu_abstopk(module.c_fc(module.act_in(x)), k))
    assert FUSED in operators(module, x)


def test_what_it_does_not_do_goes_the_other_way():
    x = torch.randn(2, 40, 32)
    assert FUSED not in operators(mlp(activation="relu"), x)
    assert FUSED in operators(mlp(afrac=None), x)
    half = mlp()
    half.c_proj.held = None
    assert FUSED not in operators(half, x)
    half.c_proj = torch.nn.Linear(128, 32)
    assert FUSED not in operators(half, x)
    assert not takes(x.double(), 10, 3)
    assert not takes(x, 10, 0)
    assert not takes(x, 40_000, 3)


def test_gradients_through_a_model_s_mlp():
    module, x = mlp(), torch.randn(2, 40, 32, requires_grad=True)
    leaves = [x, module.c_fc.held.values, module.c_fc.bias, module.c_proj.held.values, module.c_proj.bias]
    upstream = torch.randn(2, 40, 32)
    ours = torch.autograd.grad(module(x), leaves, upstream)
    handle = module.post_act.register_forward_hook(lambda *given: None)
    theirs = torch.autograd.grad(module(x), leaves, upstream)
    handle.remove()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
