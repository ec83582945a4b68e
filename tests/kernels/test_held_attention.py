"""The attention layer in one operator gives what its parts give one after the other: outputs, choice, all gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heldweights import held, hold, operators, watched_in_every_way
from sparsecircuits.kernels import abstopk, causal_attention, held_attention
from sparsecircuits.kernels.held_attention import _held_attention, _held_attention_backward, takes
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import Attention, KVCache


class Case:
    """An attention layer of `heads` heads of `channels` channels, and its input; `biases`: how many of its two linear
    maps have one."""

    def __init__(
        self, shape, heads, channels, outputs, density, biases=2, sink=True, dtype=torch.float32, levels=None, reach=5
    ):
        inputs, self.width, self.heads = shape[-1], heads * channels, heads
        self.attn, self.proj = held(3 * self.width, inputs, density, dtype), held(outputs, self.width, density, dtype)
        draw = torch.randn if levels is None else lambda *s, dtype: torch.randint(-levels, levels + 1, s).to(dtype)
        self.x = draw(*shape, dtype=dtype).requires_grad_()
        self.attn_bias = draw(3 * self.width, dtype=dtype).requires_grad_() if biases > 0 else None
        self.proj_bias = torch.randn(outputs, dtype=dtype).requires_grad_() if biases > 1 else None
        self.sink = torch.randn(heads, dtype=dtype).requires_grad_() if sink else None
        self.offsets = torch.randn(heads, reach, dtype=dtype).requires_grad_() if reach else None
        self.grad = torch.randn(*shape[:2], outputs, dtype=dtype)
        with torch.no_grad():
            if levels is not None:  # few different numbers: many equal queries, keys and values
                self.attn.values.sign_()
            self.attn.values.mul_(0.25)  # scores of a few units: those of hundreds would magnify roundings

    @property
    def leaves(self):
        given = (self.x, self.attn.values, self.attn_bias, self.proj.values, self.proj_bias, self.sink, self.offsets)
        return [leaf for leaf in given if leaf is not None]

    def fused(self, kept):
        weights = (self.attn, self.attn_bias, self.proj, self.proj_bias, self.sink)
        return held_attention(self.x, *weights, self.heads, kept, self.offsets)

    def qkv(self, kept):
        parts = self.attn.linear(self.x, self.attn_bias).chunk(3, dim=-1)
        return [part if k is None else abstopk(part, k) for part, k in zip(parts, kept, strict=True)]

    def unfused(self, kept):
        mixed = causal_attention(*self.qkv(kept), self.heads, self.sink, self.offsets)
        return self.proj.linear(mixed, self.proj_bias)

    def gradients(self, output):
        return torch.autograd.grad(output, self.leaves, self.grad)

    def arguments(self, kept):
        p, q = self.attn.pattern, self.proj.pattern
        lists = (p.row_starts, p.columns, q.column_starts, q.rows, q.order)
        weights = (self.attn.values, self.attn_bias, self.proj.values, self.proj_bias, self.sink, self.offsets)
        return self.x, *weights, *lists, q.shape[0], self.heads, *kept

    def agrees(self, kept):
        ours, theirs = self.fused(kept), self.unfused(kept)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        for one, other in zip(self.gradients(ours), self.gradients(theirs), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5 * max([1.0, *other.abs().flatten().tolist()]))


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 5),
    length=st.integers(1, 150),
    inputs=st.integers(1, 30),
    heads=st.integers(1, 4),
    channels=st.sampled_from([1, 3, 8, 16, 17]),
    outputs=st.integers(1, 30),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
    biases=st.integers(0, 2),
    sink=st.booleans(),
    levels=st.sampled_from([None, None, 1, 3]),
    seed=st.integers(0, 99),
)
def test_outputs_and_gradients_are_those_of_the_parts(
    batch, length, inputs, heads, channels, outputs, density, shares, biases, sink, levels, seed
):
    torch.manual_seed(seed)
    case = Case((batch, length, inputs), heads, channels, outputs, density, biases, sink, levels=levels)
    case.agrees([1 + round(share * (heads * channels - 1)) for share in shares])


@pytest.mark.parametrize("kept", [(1, 2, 3), (64, 10, 63), (65, None, 64), (None, None, None)])
def test_longer_sequences_and_every_kind_of_k(kept):
    torch.manual_seed(0)
    Case((3, 256, 50), 4, 16, 40, 0.1).agrees(kept)
    Case((2, 129, 50), 4, 16, 40, 0.1, sink=False, reach=0).agrees(kept)


@pytest.mark.parametrize("levels", [None, 1, 2])
def test_the_entries_kept_are_the_same_ties_included(levels):
    torch.manual_seed(1)
    case, kept = Case((2, 150, 9), 3, 16, 8, 0.3, levels=levels), (5, 20, 47)
    found = _held_attention(*case.arguments(kept))[1][:, :, :150].transpose(1, 2)
    assert torch.equal(found, torch.cat(case.qkv(kept), dim=-1))


def test_a_query_sees_no_later_token_and_no_other_sequence():
    torch.manual_seed(0)
    case, kept = Case((3, 100, 12), 2, 16, 7, 0.4), (9, 9, 9)
    clean = case.fused(kept).detach()
    with torch.no_grad():
        case.x[1, 40:] = torch.randn(60, 12)
    got = case.fused(kept).detach()
    assert torch.equal(got[[0, 2]], clean[[0, 2]])
    assert torch.equal(got[1, :40], clean[1, :40])
    assert (got[1, 40:] != clean[1, 40:]).any(dim=-1).all()


def test_not_a_number_stays_in_its_sequence_going_back():
    torch.manual_seed(0)
    case, kept = Case((3, 100, 12), 2, 12, 7, 0.4), (9, 9, 9)
    clean = case.gradients(case.fused(kept))[0]
    with torch.no_grad():
        case.x[1, 40] = torch.nan
    found = case.gradients(case.fused(kept))[0]
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    case, results = Case((20, 70, 30), 3, 16, 20, 0.1), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        output = case.fused((7, 8, 9))
        results.append([output, *case.gradients(output)])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_no_sequences_at_all_and_nothing_kept():
    torch.manual_seed(0)
    empty = Case((0, 9, 20), 2, 16, 7, 0.4)
    output = empty.fused((5, 5, 5))
    assert output.shape == (0, 9, 7)
    assert all((g == 0).all() for g in empty.gradients(output))
    with pytest.raises(ValueError, match="must be positive"):
        empty.fused((5, 0, 5))


def test_double_precision_goes_by_the_reference():
    torch.manual_seed(0)
    case = Case((2, 6, 5), 2, 4, 3, 0.6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *_: case.fused((3, 4, 5)), case.leaves)
    bare = Case((2, 6, 5), 2, 4, 3, 0.6, biases=0, sink=False, dtype=torch.float64, reach=0)
    assert torch.autograd.gradcheck(lambda *_: bare.fused((3, None, 5)), bare.leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_keep_the_library_s_rules(dtype):
    torch.manual_seed(0)
    case = Case((2, 70, 6), 2, 4, 5, 0.5, dtype=dtype)
    torch.library.opcheck(_held_attention, case.arguments((5, 6, 7)))
    given = [a.detach() if isinstance(a, torch.Tensor) else a for a in case.arguments((5, 6, 7))]
    x, attn, _, proj, _, sink, offsets, *lists = given[:12]
    saved = _held_attention(*given)[1:]
    torch.library.opcheck(_held_attention_backward, (case.grad, *saved, x, attn, proj, sink, offsets, *lists))


def attention(**fields):
    torch.manual_seed(0)
    module = Attention(ModelConfig(n_layer=1, d_model=32, d_head=8, **fields))
    hold(module.c_attn, module.c_proj)
    return module


FUSED = "sparsecircuits::held_attention"


def test_a_model_s_layer_is_one_operator_unless_someone_looks_inside():
    module = attention(sink=True)
    parts = (module.c_attn, module.q, module.k, module.v, module.y, module.c_proj)
    watched_in_every_way(module, parts, torch.randn(2, 40, 32), FUSED)


def test_recording_sees_the_activations():
    module, x = attention(), torch.randn(2, 40, 32)
    with record(module, ["q", "y"]) as recorded:
        module(x)
    q = module.c_attn(module.act_in(x)).chunk(3, dim=-1)[0]
    assert torch.equal(recorded["q"], abstopk(q, module.q.k))
    assert FUSED in operators(module, x)


def test_what_it_does_not_do_goes_the_other_way():
    x = torch.randn(2, 40, 32)
    module = attention()
    assert FUSED not in operators(lambda x: module(x, cache=KVCache.empty(1)), x)
    assert FUSED not in operators(lambda x: module.at(x, torch.tensor([3, 4])), x)
    assert FUSED in operators(attention(afrac=None), x)
    module.c_proj.held = None
    assert FUSED not in operators(module, x)
    assert not takes(x.double(), 10, (1, 1, 1))
    assert not takes(x, 10, (1, 0, 1))
    assert not takes(x, 40_000, (1, 1, 1))


def test_gradients_through_a_model_s_layer():
    module, x = attention(sink=True), torch.randn(2, 40, 32, requires_grad=True)
    leaves = [x, module.c_attn.held.values, module.c_attn.bias, module.c_proj.held.values, module.c_proj.bias]
    leaves += [module.sink_logit]
    upstream = torch.randn(2, 40, 32)
    ours = torch.autograd.grad(module(x), leaves, upstream)
    handle = module.y.register_forward_hook(lambda *given: None)
    theirs = torch.autograd.grad(module(x), leaves, upstream)
    handle.remove()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * max([1.0, *other.abs().flatten().tolist()]))
