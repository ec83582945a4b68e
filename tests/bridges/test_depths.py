"""Bridges between models of different depth: which boundaries are joined."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from randommodels import random_model
from sparsecircuits.bridges.bridge import Bridge, Joined
from sparsecircuits.bridges.config import BridgeConfig
from sparsecircuits.bridges.directions import dense_site, direction, place_of, residual_norms, stream_reads
from sparsecircuits.bridges.fitting import turn_maps_
from sparsecircuits.bridges.losses import bridge_losses
from sparsecircuits.bridges.measures import measure_bridge
from sparsecircuits.bridges.storage import load_bridge
from sparsecircuits.bridges.training import train_bridge
from sparsecircuits.data import TokenData
from sparsecircuits.errors import UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import save_native
from sparsecircuits.models.transformer import SparseTransformer

SHALLOW = ModelConfig(vocab_size=60, n_ctx=12, n_layer=2, d_model=12, d_head=4, d_mlp=20, afrac=None)
PLACES = ("0:0", "1:1", "4:2", "5:3", "6:4")


@pytest.fixture
def pair():
    """(three layers, two layers): the same function, since the deep one's middle layer writes nothing."""
    shallow = random_model(SHALLOW, 1)
    deep = SparseTransformer(dataclasses.replace(SHALLOW, n_layer=3))
    state = shallow.state_dict()
    moved = {name.replace("blocks.1.", "blocks.2."): tensor for name, tensor in state.items()}
    idle = {name: torch.zeros_like(t) for name, t in deep.state_dict().items() if name.startswith("blocks.1.")}
    deep.load_state_dict({**idle, **moved})
    return deep.eval(), shallow


def same_maps(bridge):
    """Maps that leave the residual stream as it is."""
    turn_maps_(bridge, torch.eye(12))
    return bridge


@pytest.mark.parametrize("pattern", ["dddd", "ssss", "dsds", "sdsd", "dssd", "sdddds"])
def test_each_switch_lands_where_the_other_model_is_as_far(pair, pattern):
    bridge = same_maps(Bridge.between(*pair, joined=Joined.parse(PLACES)))
    ids = torch.randint(60, (3, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bridge.hybrid(pattern)(ids), pair[1](ids), atol=1e-5, rtol=1e-5)


def test_nothing_is_lost_between_them(pair):
    bridge = same_maps(Bridge.between(*pair, joined=Joined.parse(PLACES)))
    ids = torch.randint(60, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = bridge_losses(bridge, ids, ids, range(5))
    assert max(float(losses.nmse), float(losses.kl_to_sparse), float(losses.kl_to_dense)) < 1e-6
    found = measure_bridge(bridge, np.arange(600) % 60, max_tokens=240, samples=2)
    assert [(row["boundary"], row["sparse_boundary"]) for row in found["boundaries"]][2] == (4, 2)
    assert max(row["kl_to_dense"] for row in found["boundaries"]) < 1e-6


def test_a_node_steers_what_the_dense_model_reads_at_its_place(pair):
    bridge = same_maps(Bridge.between(*pair, joined=Joined.parse(PLACES)))
    assert dense_site(bridge, "1.attn.act_in") == "2.attn.act_in"
    assert dense_site(bridge, "1.mlp.act_in") == "2.mlp.act_in"
    assert dense_site(bridge, "final_resid") == "final_resid"
    norms = residual_norms(bridge, torch.arange(12)[None], torch.ones(1, 12, dtype=torch.bool))
    weight = bridge.sparse.get_parameter("blocks.1.ln_1.weight")
    channel = int(weight.abs().argmax())
    found = direction(bridge, "1.attn.act_in", channel, norms)
    torch.testing.assert_close(found, torch.eye(12)[channel], atol=1e-5, rtol=1e-5)


def test_reads_between_the_places_cannot_be_steered(pair):
    bridge = Bridge.between(*pair, joined=Joined.parse(["0:0", "6:4"]))
    assert stream_reads(bridge.sparse, ["0.attn.act_in.1", "1.mlp.act_in.2"], bridge.joined.sparse) == [
        "0.attn.act_in.1"
    ]
    with pytest.raises(UserError, match="does not join"):
        place_of(bridge, "1.mlp.act_in")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (["0:0", "6"], "DENSE:SPARSE"),
        (["0:0", "x:4"], "DENSE:SPARSE"),
        (["0:0", "6:3"], "sparse model must rise from 0 to 4, not 0 3"),
        (["0:0", "4:2", "4:3", "6:4"], "dense model must rise"),
        (["1:0", "6:4"], "dense model must rise"),
    ],
)
def test_places_that_join_nothing_are_refused(pair, places, said):
    with pytest.raises(UserError, match=said):
        Bridge.between(*pair, joined=Joined.parse(places))


def test_without_places_two_depths_are_refused(pair):
    with pytest.raises(UserError, match="3 layers, the sparse one 2"):
        Bridge.between(*pair)


def test_it_is_trained_saved_and_read_again(pair, tmp_path):
    deep, shallow = pair
    save_native(deep, tmp_path / "deep")
    ids = np.random.default_rng(0).integers(0, 60, 2000)
    config = BridgeConfig(steps=2, batch_size=2, eval_tokens=120, fit_tokens=480, places=PLACES)
    data = TokenData.of(ids[:1500], ids[1500:])
    bridge = train_bridge(deep, shallow, tmp_path / "out", data, config, dense_path=str(tmp_path / "deep"))
    loaded = load_bridge(tmp_path / "out")
    assert loaded.joined == bridge.joined == Joined((0, 1, 4, 5, 6), (0, 1, 2, 3, 4))
    with torch.no_grad():
        assert torch.equal(loaded.hybrid("dsds")(torch.arange(12)[None]), bridge.hybrid("dsds")(torch.arange(12)[None]))
    record = json.loads((tmp_path / "out" / "bridge.json").read_text())
    for joined, said in (({"dense": "x"}, "no boundaries"), ({"dense": [0, 6], "sparse": [0, 1, 4]}, "2 and 3")):
        (tmp_path / "out" / "bridge.json").write_text(json.dumps({**record, "joined": joined}))
        with pytest.raises(UserError, match=said):
            load_bridge(tmp_path / "out")
