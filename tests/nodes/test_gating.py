"""Ablations and edge gates, each against its definition."""

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.nodes.ablation_values import ablation_values
from sparsecircuits.nodes.donors import Donors
from sparsecircuits.nodes.edges import EdgeGates, edges_between
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits, candidate_logits


def random_model(afrac):
    """Two layers of random weights."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.default()
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_ctx=128, n_layer=2, d_model=16, d_head=4, d_mlp=32, afrac=afrac
    )
    made = sc.SparseTransformer(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    made.tokenizer = tokenizer
    return made.eval()


@pytest.fixture(scope="module")
def model():
    return random_model(afrac=0.25)


@pytest.fixture(scope="module")
def batch():
    return sc.get_task("if_equals").batch("train", 12)


def test_counterparts_align_the_beginning_and_the_end(batch):
    place = Donors.pairs(batch).place
    for row, last in enumerate(batch.last):
        other = row ^ 1
        tokens, others = batch.tokens[row], batch.tokens[other]
        assert place[row, last] == batch.last[other]
        assert (place >= 0).all()
        assert (place[row] <= batch.last[other]).all()
        same = sum(tokens[t] == others[place[row, t]] for t in range(last + 1))
        assert same >= last - 1  # all but what is inserted or replaced: a name at the margin is two tokens


def test_resampling_everything_gives_the_other_prompts_logits(model, batch):
    """With every node off, the final read is that of the other prompt; only the bigram row is the prompt's own."""
    space = NodeSpace.of(model.config)
    full = all_candidate_logits(model, batch)
    bigram = model.bigram.weight[batch.tokens[range(24), batch.last]][:, list(batch.answers)].detach()
    other = torch.arange(24) ^ 1
    off = Gating(space, torch.zeros(space.size), torch.zeros(space.size), "resample")
    torch.testing.assert_close(all_candidate_logits(model, batch, off) - bigram, (full - bigram)[other])


@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
def test_gates_on_change_nothing(model, batch, ablation):
    space = NodeSpace.of(model.config)
    everything = torch.ones(space.size, dtype=torch.bool)
    edges = edges_between(model, space, everything)
    gating = Gating(
        space, everything.float(), torch.randn(space.size), ablation, EdgeGates(edges, torch.ones(len(edges)))
    )
    torch.testing.assert_close(all_candidate_logits(model, batch, gating), all_candidate_logits(model, batch))


@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
def test_all_edges_of_a_node_off_is_the_node_off(model, batch, ablation):
    space = NodeSpace.of(model.config)
    everything = torch.ones(space.size, dtype=torch.bool)
    frozen = ablation_values(ablation, torch.randn(space.size))
    edges = edges_between(model, space, everything)
    for name in ("0.attn.act_in.3", "0.mlp.act_in.2", "1.attn.v.1", "1.mlp.post_act.7"):
        if ablation == "resample" and ".v." in name:
            continue  # its edges then carry what the other prompt's own attention gathered
        node = space.mask([name])
        gates = (~node[edges.source]).float()
        by_edges = Gating(space, everything.float(), frozen, ablation, EdgeGates(edges, gates))
        by_node = Gating(space, (~node).float(), frozen, ablation)
        torch.testing.assert_close(
            all_candidate_logits(model, batch, by_edges),
            all_candidate_logits(model, batch, by_node),
            atol=1e-4,
            rtol=1e-4,
        )


def test_an_edge_off_is_its_weight_times_the_difference(model, batch):
    space = NodeSpace.of(model.config)
    kept = torch.ones(space.size, dtype=torch.bool)
    edges = edges_between(model, space, kept)
    one = (edges.source == space.mask(["0.mlp.act_in.5"]).nonzero().item()).nonzero().flatten()[3:4]
    frozen = torch.randn(space.size)
    gating = Gating(space, kept.float(), frozen, "mean", EdgeGates(edges[one], torch.zeros(1)))
    linear, row = model.block(0).mlp.c_fc, edges.target[one].item() - space.slices["0.mlp.post_act"].start
    seen = {}
    with torch.no_grad(), gating.over(model, batch):
        handle = linear.register_forward_hook(lambda _m, inputs, output: seen.update(x=inputs[0], y=output))
        candidate_logits(model, batch)
        handle.remove()
    expected = linear(seen["x"]).detach()
    expected[..., row] += edges.weight[one] * (frozen[edges.source[one]] - seen["x"][..., 5])
    torch.testing.assert_close(seen["y"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_edge_gates_have_the_gradient_of_their_effect(batch, ablation):
    model = random_model(afrac=None)  # AbsTopK would make it jump
    space = NodeSpace.of(model.config)
    kept = torch.ones(space.size, dtype=torch.bool)
    edges = edges_between(model, space, kept)
    chosen = edges[torch.arange(0, len(edges), max(1, len(edges) // 6))]
    gates = torch.full((len(chosen),), 0.5, requires_grad=True)

    def output(values):
        gating = Gating(space, kept.float(), torch.zeros(space.size), ablation, EdgeGates(chosen, values))
        return candidate_logits(model, batch, gating)[:, 0].sum()

    (gradient,) = torch.autograd.grad(output(gates), gates)
    with torch.no_grad():
        for place in range(len(chosen)):
            step = torch.zeros(len(chosen)).index_fill_(0, torch.tensor([place]), 1e-2)
            slope = (output(gates + step) - output(gates - step)) / 2e-2
            assert slope.item() == pytest.approx(gradient[place].item(), abs=3e-2, rel=5e-2)


def test_an_unknown_ablation_is_refused():
    with pytest.raises(sc.UserError, match=r"no ablation 'median' .*; there are mean, zero, resample"):
        ablation_values("median", torch.zeros(3))
