"""Which sites the matrices join."""

import pytest
import torch

from randommodels import random_model
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.sites import NODE_SITES, node_sites, split_node
from sparsecircuits.nodes.edges import edges_between
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.topology import join_between, joins, joins_at
from sparsecircuits.planted.models import QUOTE_EDGES, QUOTE_NODES, quote_model
from sparsecircuits.viewer.weights import node_weights


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        vocab_size=40, n_ctx=8, n_layer=2, d_model=8, d_head=2, n_head=3, d_mlp=12, positions="concat", d_pos_emb=2
    )
    return random_model(config, 0)


def test_joins_cover_every_block_matrix(model):
    covered = {id(join.linear) for join in joins(model)}
    assert len(covered) == 4 * model.config.n_layer


def test_edges_between_nodes_are_the_weights_of_the_joins():
    quote = quote_model(Tokenizer.default())
    space = NodeSpace.of(quote.config)
    edges = edges_between(quote, space, space.mask(QUOTE_NODES))
    assert sorted(edges.weight.tolist()) == sorted(QUOTE_EDGES.values())
    for (source, target), weight in QUOTE_EDGES.items():
        (source_site, column), (target_site, row) = split_node(source), split_node(target)
        assert join_between(quote, source_site, target_site).weight[row, column].item() == weight


def test_sites_that_nothing_joins_have_no_join(model):
    assert join_between(model, "0.attn.act_in", "1.attn.q") is None
    assert join_between(model, "0.attn.q", "0.attn.k") is None
    assert join_between(model, "1.mlp.resid_delta", "final_resid") is None
    assert joins_at(model, "final_resid") == ([], [])


def test_a_join_is_what_its_map_does_at_its_rows(model):
    for join in joins(model):
        x = torch.randn(join.weight.shape[1])
        bias = torch.zeros(join.linear.out_features) if join.linear.bias is None else join.linear.bias
        rows = slice(join.offset, join.offset + len(join.weight))
        torch.testing.assert_close((join.linear(x) - bias)[rows], join.weight @ x)


def test_the_weights_of_every_node_are_shown_with_the_nodes_at_their_ends(model):
    """Each weight stands in the list of the node that it leaves and in that of the node that it enters."""
    space = NodeSpace.of(model.config)
    ends = {"in": set(), "out": set()}
    for site in node_sites(model.config.n_layer):
        for index in range(space.slices[site].stop - space.slices[site].start):
            name = f"{site}.{index}"
            for part in node_weights(model, name):
                for row in part.rows:
                    if not row.name.startswith("token"):
                        pair = (row.name, name) if part.side == "in" else (name, row.name)
                        ends[part.side].add((*pair, row.weight))
    assert ends["in"] == ends["out"]
    assert len(ends["in"]) == sum(int(join.weight.count_nonzero()) for join in joins(model))
    assert {split_node(source)[0].split(".", 1)[1] for source, _, _ in ends["in"]} < set(NODE_SITES)
