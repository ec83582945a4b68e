"""Interventions agree with what is done by hand: to activations, and to weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.continuing import continued
from sparsecircuits.circuits.run_with import edge_weight
from sparsecircuits.circuits.sizes import nodes_by_importance, shown_sizes
from sparsecircuits.faithfulness.measures.interchange import recorded
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.generation import stream
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.donors import Donors
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.tasks import PairBatch

TOLERANCE = 1e-4
EDGES = [
    ("0.attn.act_in.3", "0.attn.q.5"),
    ("0.attn.act_in.3", "0.attn.k.6"),
    ("1.attn.act_in.2", "1.attn.v.9"),
    ("0.attn.v.9", "0.attn.resid_delta.4"),
    ("1.mlp.act_in.7", "1.mlp.post_act.11"),
    ("0.mlp.post_act.30", "0.mlp.resid_delta.1"),
]
NODES = ["0.attn.act_in.3", "0.attn.q.5", "1.attn.v.9", "0.attn.resid_delta.4", "1.mlp.post_act.11", "final_resid.2"]


@pytest.fixture(scope="module")
def model() -> SparseTransformer:
    torch.manual_seed(3)
    config = ModelConfig(
        vocab_size=50, n_ctx=24, n_layer=2, d_model=16, d_head=4, d_mlp=32, afrac=0.5, sink=True, bigram="learned"
    )
    model = SparseTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture(scope="module")
def circuit(model: SparseTransformer) -> Circuit:
    space = NodeSpace.of(model.config)
    frozen = torch.randn(space.size, generator=torch.Generator().manual_seed(1))
    names = [*NODES, "0.mlp.act_in.2"]
    from sparsecircuits.circuits.extraction import edges_of, nodes_of

    return Circuit(
        task="made_up",
        answers=("a", "b"),
        model_name="random",
        model_id=content_hash(model),
        target_loss=0.15,
        nodes=tuple(nodes_of(names, model.config, space.split(frozen))),
        edges=tuple(edges_of(names, model)),
        scale=1.5,
        shift=(0.2, -0.2),
        frozen=encode_frozen(space, frozen),
    )


@pytest.fixture(scope="module")
def batch() -> PairBatch:
    rng = np.random.default_rng(0)
    last = np.array([9, 11, 15, 7])
    tokens = rng.integers(1, 50, (4, 16))
    tokens[np.arange(16)[None] > last[:, None]] = 0
    return PairBatch(tokens, last, np.array([0, 1, 0, 1]), (4, 7))


def plain_run(model: SparseTransformer, batch: PairBatch) -> torch.Tensor:
    with torch.no_grad():
        return model.last_logits(torch.from_numpy(batch.tokens), torch.from_numpy(batch.last)).float()


def split(name: str) -> tuple[str, int]:
    site, _, index = name.rpartition(".")
    return site, int(index)


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("kind", ["mean", "zero", "scale", "patch"])
def test_a_node_is_what_hooks_make_of_it(model, circuit, batch, name, kind):
    site, index = split(name)
    mean = circuit.frozen_values(NodeSpace.of(model.config))[NodeSpace.of(model.config).mask([name])].item()
    with sc.record(model, site.replace(".", r"\.")) as seen:
        plain_run(model, batch)
    clean = seen[site][..., index]

    def by_hand(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        if kind == "patch":
            for row in range(4):
                other, shift = row ^ 1, int(batch.last[row ^ 1] - batch.last[row])
                for t in range(x.shape[1]):
                    x[row, t, index] = clean[other, min(max(t + shift, 0), int(batch.last[other]))]
        else:
            x[..., index] = {"mean": mean, "zero": 0.0, "scale": x[..., index] * 2.5}[kind]
        return x

    with sc.intervene(model, {site: by_hand}):
        wanted = plain_run(model, batch)
    found = sc.run_with(model, circuit, batch, [sc.Intervention(kind=kind, target=name, factor=2.5)]).logits
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    if kind != "patch" and not torch.allclose(clean, torch.zeros(())):
        assert not torch.allclose(found, plain_run(model, batch), atol=1e-6)


@pytest.mark.parametrize(("source", "target"), EDGES)
@pytest.mark.parametrize("factor", [0.0, -1.5, 3.0])
def test_scaling_an_edge_is_scaling_its_weight(model, circuit, batch, source, target, factor):
    weight = edge_weight(model, source, target)
    assert weight != 0
    change = sc.Intervention(kind="scale", source=source, target=target, factor=factor)
    found = sc.run_with(model, circuit, batch, [change]).logits
    (_, column), (site, row) = split(source), split(target)
    block = model.block(int(site[0])).attn if "attn" in site else model.block(int(site[0])).mlp
    part = {"q": 0, "k": 1, "v": 2}.get(site[-1], 0) if site.endswith(("q", "k", "v")) else None
    matrix = {"attn.resid_delta": "c_proj", "mlp.post_act": "c_fc", "mlp.resid_delta": "c_proj"}.get(site[2:], "c_attn")
    parameter = getattr(block, matrix).weight
    row = row if part is None else part * model.config.attn_width + row
    with torch.no_grad():
        old = parameter[row, column].item()
        assert old == pytest.approx(weight)
        parameter[row, column] = old * factor
        try:
            wanted = plain_run(model, batch)
        finally:
            parameter[row, column] = old
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_zero_is_scale_0_and_a_resampled_edge_moves(model, circuit, batch):
    source, target = EDGES[3]
    zero = sc.run_with(model, circuit, batch, [sc.Intervention(kind="zero", source=source, target=target)]).logits
    scaled = [sc.Intervention(kind="scale", source=source, target=target, factor=0.0)]
    torch.testing.assert_close(zero, sc.run_with(model, circuit, batch, scaled).logits)
    again = [sc.Intervention(kind="resample", target="0.attn.v.9")]
    first, second = (sc.run_with(model, circuit, batch, again, seed=seed).logits for seed in (0, 0))
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, plain_run(model, batch))


def test_the_circuit_alone_is_gated_first(model, circuit, batch):
    space = NodeSpace.of(model.config)
    change = [sc.Intervention(kind="zero", target="1.attn.v.9")]
    found = sc.run_with(model, circuit, batch, change, scope="circuit").logits
    gates, frozen = circuit.kept(space).float(), circuit.frozen_values(space)

    def zeroed(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[..., 9] = 0
        return x

    with Gating(space, gates, frozen).over(model, batch), sc.intervene(model, {"1.attn.v": zeroed}):
        wanted = plain_run(model, batch)
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_nothing_is_left_behind_and_bad_targets_are_named(model, circuit, batch):
    before = plain_run(model, batch)
    sc.run_with(model, circuit, batch, [sc.Intervention(kind="patch", source=EDGES[3][0], target=EDGES[3][1])])
    for change, words in [
        ({"target": "0.attn.q.99"}, "no node '0.attn.q.99'"),
        ({"target": "nonsense"}, "no node 'nonsense'"),
        ({"target": "0.mlp.post_act.1", "source": "1.mlp.act_in.1"}, "no edge"),
    ]:
        with pytest.raises(sc.UserError, match=words):
            sc.run_with(model, circuit, batch, [sc.Intervention(kind="zero", **change)])
    with pytest.raises(sc.UserError, match="which prompt to patch from"):
        sc.run_with(model, circuit, batch.rows(0, 3), [sc.Intervention(kind="patch", target="final_resid.1")])
    torch.testing.assert_close(plain_run(model, batch), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_order_of_importance_without_measured_importance(model, circuit, batch):
    order = nodes_by_importance(circuit.on(model), batch)
    assert sorted(order) == sorted(circuit.node_names)
    measured = circuit.model_copy(
        update={
            "nodes": tuple(node.model_copy(update={"importance": float(i)}) for i, node in enumerate(circuit.nodes))
        }
    )
    assert nodes_by_importance(measured.on(model), batch) == circuit.node_names[::-1]
    assert shown_sizes(5) == [0, 1, 2, 3, 4, 5]
    many = shown_sizes(2000)
    assert many[0] == 0
    assert many[-1] == 2000
    assert len(many) <= 42


def test_patch_interchange_and_resample_ablation_take_the_same_values(model, circuit, batch):
    """The two prompts of a pair begin alike and differ in length: from the end alone, the beginnings would not meet."""
    tokens = batch.tokens.copy()
    tokens[1::2, :5] = tokens[::2, :5]
    pairs = replace(batch, tokens=tokens)
    (site, index), real = split("1.mlp.post_act.11"), np.arange(16)[None] <= batch.last[:, None]
    name, space = f"{site}.{index}", NodeSpace.of(model.config)
    change = sc.Intervention(kind="patch", target=name)
    patched = sc.run_with(model, circuit, pairs, [change], watch=[site]).activations[site][..., index]
    interchanged = recorded(model, Donors.pairs(pairs), [name], None)[name]
    gating = Gating(space, 1 - space.mask([name]).float(), torch.zeros(space.size), "resample")
    with torch.no_grad(), gating.over(model, pairs, narrow=False), sc.record(model, [site]) as seen:
        model(torch.from_numpy(tokens))
    with torch.no_grad(), sc.record(model, [site]) as clean:
        model(torch.from_numpy(tokens))
    own = clean[site][..., index]
    for taken in (patched, interchanged, seen[site][..., index]):
        torch.testing.assert_close(taken[real], interchanged[real])
        torch.testing.assert_close(taken[:, :5], own[:, :5])  # they begin alike, and so do their activations
        last = torch.from_numpy(batch.last)
        torch.testing.assert_close(taken[range(4), last], own[range(4), last][[1, 0, 3, 2]])


@pytest.mark.parametrize("scope", ["model", "circuit"])
@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("kind", ["mean", "zero", "scale", "patch"])
@pytest.mark.parametrize("before_last", [0, 3, 9, 40])
def test_a_change_at_one_token_leaves_the_others(model, circuit, batch, scope, name, kind, before_last):
    """What is done at every token is undone by hand at all but one."""
    site, index = split(name)
    wide = {"watch": [site], "scope": scope}
    at_all = sc.Intervention(kind=kind, target=name, factor=2.5)
    plain = sc.run_with(model, circuit, batch, **wide).activations[site][..., index]
    changed = sc.run_with(model, circuit, batch, [at_all], **wide).activations[site][..., index]
    there = torch.arange(16)[None] == torch.from_numpy(batch.last)[:, None] - before_last

    change = at_all.model_copy(update={"before_last": before_last})
    found = sc.run_with(model, circuit, batch, [change], **wide).activations[site][..., index]
    torch.testing.assert_close(found, torch.where(there, changed, plain), atol=TOLERANCE, rtol=0)
    # A pass that watches nothing has the last layer at the last token alone.
    narrow = sc.run_with(model, circuit, batch, [change], scope=scope).logits
    torch.testing.assert_close(
        narrow, sc.run_with(model, circuit, batch, [change], **wide).logits, atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize(("source", "target"), EDGES)
def test_an_edge_changed_at_each_token_is_changed_at_all(model, circuit, batch, source, target):
    def run(*places: int | None) -> torch.Tensor:
        changes = [sc.Intervention(kind="zero", source=source, target=target, before_last=place) for place in places]
        return sc.run_with(model, circuit, batch, changes).logits

    torch.testing.assert_close(run(*range(16)), run(None), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(run(40), plain_run(model, batch), atol=TOLERANCE, rtol=0)


def test_what_is_done_at_one_token_is_done_after_what_is_done_at_all(model, circuit, batch):
    name = "0.attn.resid_delta.4"
    at_all, there = sc.Intervention(kind="zero", target=name), sc.Intervention(kind="scale", factor=1, target=name)
    one = there.model_copy(update={"before_last": 2})
    for changes in ([at_all, one], [one, at_all]):
        seen = sc.run_with(model, circuit, batch, changes, watch=["0.attn.resid_delta"]).activations
        assert not seen["0.attn.resid_delta"][..., 4].any()  # scaled is what the zero left


@pytest.mark.parametrize("kind", ["patch", "resample"])
def test_donors_are_kept(model, circuit, batch, kind, monkeypatch):
    changes = [sc.Intervention(kind=kind, target=name) for name in NODES]
    wanted = sc.run_with(model, circuit, batch, changes, seed=3).logits
    kept: dict = {}
    for _ in range(2):
        found = sc.run_with(model, circuit, batch, changes, seed=3, kept=kept).logits
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)
        monkeypatch.setattr("sparsecircuits.circuits.run_with.on_donors", None)  # the second run asks nobody


CHANGES = [
    [],
    [sc.Intervention(kind="zero", target="0.attn.resid_delta.4", before_last=2)],
    [sc.Intervention(kind="patch", target=name) for name in NODES],
    [sc.Intervention(kind="resample", target=name) for name in NODES],
]


@pytest.mark.parametrize("scope", ["model", "circuit"])
@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_a_continuation_begins_as_the_prompt_is_answered(model, circuit, batch, scope, changes, ablation):
    bound = circuit.model_copy(update={"ablation": ablation}).on(model)
    found = continued(bound, batch, changes, tokens=5, scope=scope, seed=4)
    first = sc.run_with(model, bound, batch, changes, scope=scope, seed=4).logits.argmax(dim=-1)
    assert [row[0] for row in found] == first.tolist()
    assert [len(row) for row in found] == [5, 5, 5, 5]
    if not changes and scope == "model":
        ids = torch.from_numpy(batch.tokens)[:1, : batch.last[0] + 1]
        assert found[0] == [int(token) for token in stream(model, ids, 5)]
    stopped = continued(bound, batch, changes, tokens=5, stop=found[0][0], scope=scope, seed=4)
    assert stopped[0] == []


def test_a_change_stays_at_its_token_while_the_text_grows(model, circuit, batch):
    """Two tokens are the second by the first; what is changed is counted from the prompt's end."""
    one = batch.rows(0, 1)
    change = sc.Intervention(kind="scale", factor=-3, target="0.attn.resid_delta.4", before_last=1)
    first, second = continued(circuit.on(model), one, [change], tokens=2)[0]
    longer = replace(one, tokens=np.append(one.tokens, [[first]], axis=1), last=one.last + 1)
    moved = change.model_copy(update={"before_last": 2})
    assert second == sc.run_with(model, circuit, longer, [moved]).logits.argmax().item()


def test_a_continuation_ends_with_the_context(model, circuit, batch):
    assert [len(row) for row in continued(circuit.on(model), batch, tokens=40)] == [24 - 11, 24 - 11, 24 - 15, 24 - 15]
