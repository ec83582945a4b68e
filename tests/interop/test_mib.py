"""MIB's graphs: what of a circuit they say, that files keep it, and that nothing is taken which ours cannot say."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from madecircuits import circuit_of
from randommodels import configs, random_model
from sparsecircuits.interop.mib import MibGraph, from_mib, node_names, read_mib, to_mib
from sparsecircuits.nodes.space import NodeSpace


def closed(n_layers, n_heads, d_model, nodes, writes=None):
    """The graph that has some nodes and all edges between them."""
    empty = MibGraph(n_layers, n_heads, d_model, frozenset(nodes), frozenset(), {})
    inside = {*nodes, "logits"}
    edges = [f"{a}->{b}" for a, b in empty.possible() if a in inside and b.partition("<")[0] in inside]
    return MibGraph(n_layers, n_heads, d_model, frozenset(nodes), frozenset(edges), dict.fromkeys(edges, 1.0), writes)


@st.composite
def graphs(draw):
    n_layers, n_heads, d_model = (draw(st.integers(1, 3)) for _ in range(3))
    empty = MibGraph(n_layers, n_heads, d_model, frozenset(), frozenset(), {})
    names = [f"{source}->{target}" for source, target in empty.possible()]
    scores = {name: draw(st.floats(-4, 4, width=16)) for name in draw(st.sets(st.sampled_from(names)))}
    scores = {name: score for name, score in scores.items() if score}
    edges = draw(st.sets(st.sampled_from(names)))
    nodes = draw(st.sets(st.sampled_from(empty.sources)))
    writes = {name: frozenset(draw(st.sets(st.integers(0, d_model - 1)))) for name in nodes}
    return MibGraph(n_layers, n_heads, d_model, frozenset(nodes), frozenset(edges), scores, writes)


@settings(max_examples=40, deadline=None)
@given(graph=graphs())
def test_a_file_keeps_a_graph(graph, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mib")
    assert read_mib(graph.save(folder / "g.pt")) == graph
    without = MibGraph(**{**vars(graph), "writes": None})
    assert read_mib(graph.save(folder / "g.json")) == without


@settings(max_examples=25, deadline=None)
@given(config=configs(), data=st.data())
def test_heads_mlps_and_what_they_write_outlive_the_way_there_and_back(config, data):
    """Of a graph that ours can say, all but writes that no weight makes: a circuit's edges are real weights."""
    model = random_model(config, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)  # every weight is there
    possible = MibGraph(config.n_layer, config.heads, config.d_model, frozenset(), frozenset(), {}).sources
    nodes = {"input", *data.draw(st.sets(st.sampled_from(possible)))}
    graph = closed(config.n_layer, config.heads, config.d_model, nodes)
    names = node_names(graph, config)
    again = to_mib(circuit_of(model, names), config)
    assert (again.nodes, again.edges) == (graph.nodes, graph.edges)
    assert node_names(again, config) == names


def test_what_a_circuit_says_and_how_it_is_counted():
    config = sc.ModelConfig(vocab_size=40, n_ctx=8, n_layer=2, d_model=8, d_head=4, d_mlp=8, bigram="none")
    model = random_model(config, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    names = ["0.attn.act_in.1", "0.attn.v.5", "0.attn.resid_delta.3", "1.mlp.act_in.3", "1.mlp.post_act.2"]
    graph = to_mib(circuit_of(model, [*names, "1.mlp.resid_delta.6", "final_resid.3", "final_resid.6"]), config)
    assert graph.nodes == {"input", "a0.h1", "m1"}
    assert graph.scores == {
        "input->a0.h1<v>": 1,
        "input->m1": 1,
        "a0.h1->m1": 1,  # by channel 3
        "input->logits": 2,
        "a0.h1->logits": 1,
        "m1->logits": 1,
    }
    assert graph.writes == {"a0.h1": {3}, "m1": {6}, "input": {1, 3, 6}}


def test_files_have_the_layout_that_the_benchmark_reads(tmp_path):
    graph = closed(1, 2, 3, {"input", "a0.h1"}, {"input": frozenset({0}), "a0.h1": frozenset({1, 2})})
    raw = json.loads(graph.save(tmp_path / "g.json").read_text())
    assert raw["cfg"] == {"n_layers": 1, "n_heads": 2, "d_model": 3, "parallel_attn_mlp": False}
    assert list(raw["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "logits"]
    assert raw["edges"]["input->a0.h1<q>"] == {"score": 1.0, "in_graph": True}
    assert raw["edges"]["a0.h0->m0"] == {"score": 0.0, "in_graph": False}
    assert len(raw["edges"]) == 6 + 3 + 4
    tensors = torch.load(graph.save(tmp_path / "g.pt"), weights_only=True)
    assert tensors["src_nodes"] == ["input", "a0.h0", "a0.h1", "m0"]
    assert tensors["dst_nodes"] == [*(f"a0.h{h}<{p}>" for p in "qkv" for h in (0, 1)), "m0", "logits"]
    assert tensors["edges_in_graph"].shape == tensors["edges_scores"].shape == (4, 8)
    assert tensors["neurons_in_graph"].tolist()[2] == [False, True, True]


def test_a_graph_becomes_a_circuit_that_runs(handmade_run):
    model = sc.load_model(handmade_run)
    config = model.config
    every = MibGraph(config.n_layer, config.heads, config.d_model, frozenset(), frozenset(), {}).sources
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    circuit = from_mib(closed(config.n_layer, config.heads, config.d_model, every), model, task)
    assert len(circuit.nodes) == NodeSpace.of(config).size
    batch = task.batch("held_out", 8)
    whole, alone = (sc.run_with(model, circuit, batch, scope=scope).logits for scope in ("model", "circuit"))
    torch.testing.assert_close(alone, whole, atol=1e-4, rtol=1e-4)


def test_what_ours_cannot_say_is_refused_in_a_line(tmp_path):
    config = sc.ModelConfig(vocab_size=40, n_ctx=8, n_layer=1, d_model=4, d_head=2)
    graph = closed(1, 2, 4, {"input", "a0.h0", "m0"})
    lacking = MibGraph(**{**vars(graph), "edges": graph.edges - {"a0.h0->m0"}})
    with pytest.raises(sc.UserError, match=r"a0\.h0 and m0 without an edge"):
        node_names(lacking, config)
    with pytest.raises(sc.UserError, match="the model has 1, 2 and 4"):
        node_names(closed(2, 2, 4, {"input"}), config)
    path = graph.save(tmp_path / "g.json")
    good = json.loads(path.read_text())
    with pytest.raises(sc.UserError, match=r"\.json or \.pt"):
        graph.save(tmp_path / "g.txt")
    for change, words in {
        "cfg": ({**good["cfg"], "parallel_attn_mlp": True}, "side by side"),
        "nodes": ({**good["nodes"], "a7.h0": {"in_graph": True}}, "'a7.h0' is no part"),
        "edges": ({"m0->a0.h0<q>": {"in_graph": True, "score": 1}}, "is no part"),
    }.items():
        path.write_text(json.dumps({**good, change: words[0]}))
        with pytest.raises(sc.UserError, match=words[1]):
            read_mib(path)
    for text in ("{}", "[]", '{"cfg": {}, "nodes": {}, "edges": {}}'):
        path.write_text(text)
        with pytest.raises(sc.UserError, match="is no MIB graph"):
            read_mib(path)
    neurons = {**good["nodes"], "m0": {"in_graph": True, "neurons": [True] * 4}}
    path.write_text(json.dumps({**good, "nodes": neurons}))
    with pytest.raises(sc.UserError, match=r"\.pt form"):
        read_mib(path)
