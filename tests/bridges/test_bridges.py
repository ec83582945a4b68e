"""Bridges: a known answer, hybrid passes, and what training may and may not change."""

import json

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from madecircuits import circuit_of
from randommodels import random_model
from sparsecircuits.bridges.bridge import Bridge, residual_streams
from sparsecircuits.bridges.carrying import carry_over
from sparsecircuits.bridges.config import BridgeConfig
from sparsecircuits.bridges.losses import bridge_losses, kl_divergence, nmse
from sparsecircuits.bridges.measures import measure_bridge
from sparsecircuits.bridges.record import read_record
from sparsecircuits.bridges.steering import steer
from sparsecircuits.bridges.storage import load_bridge
from sparsecircuits.bridges.training import train_bridge
from sparsecircuits.data import TokenData, Tokenizer
from sparsecircuits.data.tinypython import generate_files
from sparsecircuits.errors import Interrupted, UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import content_hash, save_native
from sparsecircuits.models.transformer import sparse_matrices
from sparsecircuits.planted.models import QUOTE_NODES, quote_model, rotated

DENSE = ModelConfig(vocab_size=60, n_ctx=16, n_layer=2, d_model=12, d_head=4, d_mlp=20, afrac=None)
SPARSE = ModelConfig(
    vocab_size=60, n_ctx=12, n_layer=2, d_model=20, d_head=4, d_mlp=30, positions="concat", d_pos_emb=3
)


@pytest.fixture
def pair():
    return random_model(DENSE, 1), random_model(SPARSE, 2)


@pytest.fixture(scope="module")
def text():
    ids = np.random.default_rng(0).integers(0, 60, 3000)
    return TokenData.of(ids[:2500], ids[2500:])


@pytest.fixture(scope="module")
def coupled(tmp_path_factory):
    """The quote model, its rotation, and trained bridges between them."""
    sparse = quote_model(Tokenizer.default())
    sparse.tokenizer = Tokenizer.default()
    dense, _ = rotated(sparse)
    ids = np.concatenate(
        [np.array(x) for x in sparse.tokenizer.encode_batch(f.text for f in generate_files(40, seed=5))]
    )
    out, config = (
        tmp_path_factory.mktemp("bridge") / "out",
        BridgeConfig(steps=20, batch_size=2, lr=1e-3, sparse_lr=0.0),
    )
    save_native(dense, out / "dense")
    bridge = train_bridge(
        dense, sparse, out, TokenData.of(ids[:-3000], ids[-3000:]), config, dense_path=str(out / "dense")
    )
    return bridge, out


def test_a_rotated_model_computes_the_same():
    model = random_model(ModelConfig(vocab_size=60, n_ctx=12, n_layer=2, d_model=12, d_head=4, afrac=None, sink=True))
    dense, rotation = rotated(model)
    ids = torch.randint(60, (3, 12))
    torch.testing.assert_close(dense(ids), model(ids), atol=1e-4, rtol=1e-4)
    for theirs, ours in zip(residual_streams(dense, ids), residual_streams(model, ids), strict=True):
        torch.testing.assert_close(theirs, ours @ rotation.T, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="another basis"):
        rotated(random_model(SPARSE))


def test_bridges_find_a_random_rotation(coupled):
    _, out = coupled
    measures = read_record(out)["measures"]
    assert all(max(row["nmse_encoder"], row["nmse_decoder"]) < 0.02 for row in measures["boundaries"])
    assert all(max(row["kl_to_sparse"], row["kl_to_dense"]) < 0.02 for row in measures["boundaries"])
    assert measures["loss_dense"] == pytest.approx(measures["loss_sparse"], abs=1e-4)
    assert len(measures["boundaries"]) == 3


@pytest.mark.parametrize("node", ["0.attn.act_in.0", "0.mlp.act_in.3", "final_resid.4"])
def test_steering_the_rotated_model_is_the_intervention_on_the_sparse_one(coupled, node):
    bridge, _ = coupled
    task = sc.get_task("single_double_quote.plain", bridge.sparse.tokenizer)
    found = steer(bridge, task, [node], n_pairs=8, controls=4, strengths=(0.0, 0.02, 0.05, 0.126, 0.3, 1.0))
    assert found["steered"] == pytest.approx(found["sparse"], abs=0.01)
    assert found["steered"][0] < 0.01
    assert found["steered"][-1] > 0.99
    assert found["counterfactual"] > 0.99
    for curve in found["random_nodes"]:
        assert max(curve) - curve[0] < 0.05
    for curve in found["random_directions"]:  # of 16 dimensions: each has a part of the right one
        assert all(moved <= steered + 0.01 for moved, steered in zip(curve, found["steered"], strict=True))
    back = steer(bridge, task, [node], toward="left", n_pairs=8, controls=1, strengths=(0.0, 1.0))
    assert back["answer"] == task.answers[0]
    assert back["steered"][0] < 0.01
    assert back["steered"][1] == pytest.approx(back["counterfactual"], abs=0.02)
    assert back["steered"] == pytest.approx(back["sparse"], abs=0.01)


def test_a_circuit_is_carried_over(coupled):
    bridge, _ = coupled
    task = sc.get_task("single_double_quote.plain", bridge.sparse.tokenizer)
    found = carry_over(bridge, circuit_of(bridge.sparse, QUOTE_NODES), task, n_pairs=16)
    assert found["directions"] == {"0.attn.act_in": 1, "0.mlp.act_in": 1, "final_resid": 1}
    assert found["whole"] < 0.01
    assert found["circuit"] > 0.6
    assert len(found["random"]) == 4
    assert found["whole"] <= found["principal"]
    beside = carry_over(bridge, circuit_of(bridge.sparse, ["0.attn.act_in.9", "0.mlp.act_in.9"]), task, n_pairs=16)
    assert beside["circuit"] == pytest.approx(beside["whole"], abs=0.02)
    with pytest.raises(UserError, match="nothing to map"):
        carry_over(bridge, circuit_of(bridge.sparse, ["0.attn.v.0"]), task, n_pairs=2)


def test_a_saved_bridge_belongs_to_both_its_models(coupled, tmp_path):
    bridge, out = coupled
    loaded = load_bridge(out)
    ids = torch.randint(2048, (2, 9))
    torch.testing.assert_close(loaded.hybrid("dsds")(ids), bridge.hybrid("dsds")(ids))
    other = rotated(bridge.sparse, seed=1)[0]
    with pytest.raises(UserError, match="does not belong to the dense model"):
        load_bridge(out, other)
    (tmp_path / "bridge.json").write_text("{}")
    with pytest.raises(UserError, match="no bridge of ours"):
        load_bridge(tmp_path)


def test_patterns_of_switches(pair):
    bridge = Bridge.between(*pair)
    dense, sparse, ids = bridge.dense, bridge.sparse, torch.randint(60, (2, 9))
    torch.testing.assert_close(bridge.hybrid("dddd")(ids), dense(ids))
    torch.testing.assert_close(bridge.hybrid("ssssss")(ids), sparse(ids))
    x, _ = dense.embed(ids)
    x = bridge.maps.encode(3, dense.between(x, 0, 3))
    x = bridge.maps.decode(4, sparse.between(x, 3, 4, sparse.embed(ids)[1]))
    torch.testing.assert_close(bridge.hybrid("ddddsd")(ids), dense.read_out(x, ids))
    assert bridge.single_switch(1, "sparse") == "ddssss"
    assert bridge.single_switch(4, "dense") == "sssssd"
    for wrong in ("", "dd", "ddddd", "dxdd", "dddddds"):
        with pytest.raises(UserError, match="no pattern for this bridge"):
            bridge.hybrid(wrong)


def test_tails_that_run_together_are_the_hybrid_passes(pair):
    bridge = Bridge.between(*pair, kept=5)
    ids, targets = torch.randint(60, (2, 9)), torch.randint(60, (2, 9))
    log_p = bridge.dense(ids).log_softmax(dim=-1)
    dense, sparse = (residual_streams(model, ids) for model in pair)
    for chosen in ([0, 1, 2, 3, 4], [1, 4]):
        found, share = bridge_losses(bridge, ids, targets, chosen), 5 / len(chosen)

        def divergence(to, places=tuple(chosen)):
            return sum(kl_divergence(log_p, bridge.hybrid(bridge.single_switch(i, to))(ids)) for i in places)

        errors = sum(nmse(bridge.maps.encode(i, dense[i]), sparse[i]) for i in chosen)
        errors = errors + sum(nmse(bridge.maps.decode(i, sparse[i]), dense[i]) for i in chosen)
        torch.testing.assert_close(found.kl_to_sparse, share * divergence("sparse"))
        torch.testing.assert_close(found.kl_to_dense, share * divergence("dense"))
        torch.testing.assert_close(found.nmse, share * errors)
        torch.testing.assert_close(found.pretraining, bridge.sparse.loss(ids, targets))
        assert bridge.maps.encode(0, dense[0]).count_nonzero(dim=-1).max() <= 5


def test_nmse_is_one_for_the_mean_and_leaves_the_spread_alone():
    target = torch.randn(50, 4, requires_grad=True)
    error = nmse(target.mean(dim=0).expand(50, 4), target)
    assert error.item() == pytest.approx(1)
    spread = nmse(torch.zeros(50, 4), target)
    (gradient,) = torch.autograd.grad(spread, target)
    variance = (target - target.mean(dim=0)).square().mean().detach()
    torch.testing.assert_close(gradient, 2 * target.detach() / 200 / variance)


def test_only_sparse_weights_and_bridges_move_and_no_matrix_grows(pair, text, tmp_path):
    dense, sparse = pair
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    counts = {name: int(matrix.count_nonzero()) for name, matrix in sparse_matrices(sparse).items()}
    old = {name: tensor.clone() for name, tensor in sparse.state_dict().items()}
    bridge = train_bridge(dense, sparse, tmp_path / "out", text, BridgeConfig(steps=4, batch_size=2, fit_tokens=0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert all(parameter.grad is None for parameter in dense.parameters())
    assert all(int(m.count_nonzero()) <= counts[name] for name, m in sparse_matrices(bridge.sparse).items())
    moved = [name for name, tensor in bridge.sparse.state_dict().items() if not torch.equal(tensor, old[name])]
    assert set(sparse_matrices(sparse)) <= set(moved)
    fixed = random_model(SPARSE, 2)
    train_bridge(dense, fixed, tmp_path / "fixed", text, BridgeConfig(steps=2, batch_size=2, sparse_lr=0.0))
    assert content_hash(fixed) == content_hash(random_model(SPARSE, 2))


def test_training_couples_what_was_apart(pair, text, tmp_path):
    def divergences(bridge):
        rows = measure_bridge(bridge, text.val, max_tokens=240, samples=2)["boundaries"]
        return sum(row["kl_to_sparse"] + row["kl_to_dense"] for row in rows)

    untrained = divergences(Bridge.between(*pair))
    config = BridgeConfig(steps=30, batch_size=4, lr=3e-3, sparse_lr=3e-3)
    bridge = train_bridge(*pair, tmp_path / "out", text, config)
    assert divergences(bridge) < 0.6 * untrained
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 10, 20, 30]


@pytest.mark.parametrize("boundaries", [None, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(pair, text, tmp_path, boundaries):
    config = BridgeConfig(steps=6, batch_size=2, boundaries=boundaries, fit_tokens=600, checkpoint_every=2)
    whole = train_bridge(*pair, tmp_path / "whole", text, config)

    def stop(progress, _details):
        if progress >= 0.5:
            raise Interrupted("enough", 2)

    with pytest.raises(Interrupted):
        train_bridge(random_model(DENSE, 1), random_model(SPARSE, 2), tmp_path / "cut", text, config, report=stop)
    with pytest.raises(UserError, match="another sparse model"):
        train_bridge(random_model(DENSE, 1), random_model(SPARSE, 3), tmp_path / "cut", text, resume=True)
    again = train_bridge(random_model(DENSE, 1), random_model(SPARSE, 2), tmp_path / "cut", text, resume=True)
    assert content_hash(again.sparse) == content_hash(whole.sparse)
    for name, tensor in whole.maps.state_dict().items():
        assert torch.equal(again.maps.state_dict()[name], tensor), name
    assert read_record(tmp_path / "cut")["measures"] == read_record(tmp_path / "whole")["measures"]
    with pytest.raises(UserError, match="already holds a bridge"):
        train_bridge(*pair, tmp_path / "whole", text, config)


def test_models_that_no_bridge_can_join(pair):
    deeper = random_model(ModelConfig(vocab_size=60, n_ctx=12, n_layer=3, d_model=8, d_head=4))
    with pytest.raises(UserError, match="2 layers, the sparse one 3"):
        Bridge.between(pair[0], deeper)
    with pytest.raises(UserError, match="cannot keep 21"):
        Bridge.between(*pair, kept=21)


@pytest.mark.parametrize(
    ("node", "words"),
    [("0.attn.q.1", "no read of the residual stream"), ("0.mlp.act_in.16", "no channel"), ("nonsense", "nonsense")],
)
def test_nodes_that_cannot_be_steered_from(coupled, node, words):
    task = sc.get_task("single_double_quote.plain", Tokenizer.default())
    with pytest.raises(UserError, match=words):
        steer(coupled[0], task, [node], n_pairs=2)


@pytest.mark.slow
def test_bridges_find_the_rotation_of_four_layers(tmp_path):
    """With the sparse weights trained too, as users do; loud enough weights that every sublayer matters."""
    config = ModelConfig(vocab_size=2048, n_ctx=32, n_layer=4, d_model=64, d_head=16, afrac=None, bigram="none")
    sparse = random_model(config)
    with torch.no_grad():
        for name, matrix in sparse_matrices(sparse).items():
            matrix.mul_(0.25 if "c_" in name else 1.0)
    dense, _ = rotated(sparse)
    ids = np.random.default_rng(0).integers(0, 2048, 40_000)
    options = BridgeConfig(steps=60, batch_size=8, lr=1e-3, sparse_lr=1e-4, pretraining=0.0, eval_tokens=4096)
    train_bridge(dense, sparse, tmp_path / "out", TokenData.of(ids[:36_000], ids[36_000:]), options, dense_path="here")
    rows = read_record(tmp_path / "out")["measures"]["boundaries"]
    assert len(rows) == 9
    assert all(max(row["nmse_encoder"], row["nmse_decoder"]) < 0.02 for row in rows)
