"""Circuits as files: they load elsewhere, recompute there, and refuse what does not fit."""

import dataclasses
import hashlib
import json

import pytest
import torch

import forked
import sparsecircuits as sc
from sparsecircuits.circuits.extraction import edges_of
from sparsecircuits.circuits.losses import measure
from sparsecircuits.circuits.residual import residual_links
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.measures.necessity import random_nodes_like
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.models import QUOTE_NODES, openers, quote_model
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.viewer.payload import picture_payload
from sparsecircuits.viewer.picture import render_html


@pytest.fixture(scope="module")
def found(handmade_run):
    model = sc.load_model(handmade_run)
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    circuit = sc.prune(model, task, config=PruneConfig(steps=40, pairs=8, eval_pairs=48, restarts=0, lr=4e-2))
    return model, task, circuit, circuit.save(handmade_run / "circuits" / task.name / "circuit.json")


def test_a_saved_circuit_is_the_same_circuit(found):
    _, _, circuit, path = found
    assert sc.Circuit.load(path) == circuit


def test_its_loss_recomputes_in_another_process(found, handmade_run):
    _, _, circuit, path = found
    code = """
import sys, json, sparsecircuits as sc
from sparsecircuits.circuits.losses import measure
model = sc.load_model(sys.argv[1]); circuit = sc.Circuit.load(sys.argv[2])
print(measure(model, circuit, sc.get_task(circuit.task, model.tokenizer)).model_dump_json())
"""
    done = forked.run(handmade_run, path, code=code, check=True)
    again = json.loads(done.stdout)
    for name, value in circuit.losses.model_dump().items():
        assert again[name] == pytest.approx(value, abs=1e-4) if isinstance(value, float) else again[name] == value


def test_damaged_files_are_named(found, tmp_path):
    good = json.loads(found[3].read_text())
    cases = [
        ("{", "not a circuit"),
        (json.dumps({**good, "schema_version": 2}), "schema_version"),
        (json.dumps({**good, "colour": "red"}), "colour"),
        (json.dumps({k: v for k, v in good.items() if k != "nodes"}), "nodes"),
        (json.dumps({**good, "scale": "big"}), "scale"),
    ]
    for text, words in cases:
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(sc.UserError, match=words):
            sc.Circuit.load(tmp_path / "c.json")
    with pytest.raises(sc.UserError, match="no circuit at"):
        sc.Circuit.load(tmp_path / "none.json")


def test_what_others_say_of_how_it_was_found_is_kept(found, tmp_path):
    _, _, circuit, path = found
    raw = json.loads(path.read_text())
    assert circuit.found_by.method.startswith("learned")
    assert {"config", "curve", "seconds"} <= raw["found_by"].keys()
    assert not {"search", "file", "published_losses"} & raw["found_by"].keys()
    del raw["checksum"]
    raw["found_by"] = {"method": "by hand", "who": ["a", {"b": 1.5}], "config": {"steps": 3, "more": [1, None]}}
    (tmp_path / "c.json").write_text(json.dumps(raw))
    theirs = sc.Circuit.load(tmp_path / "c.json")
    assert theirs.found_by.model_dump(mode="json") == raw["found_by"]
    assert sc.Circuit.load(theirs.save(tmp_path / "again.json")) == theirs
    raw["found_by"]["seconds"] = "long"
    (tmp_path / "c.json").write_text(json.dumps(raw))
    with pytest.raises(sc.UserError, match=r"found_by\.seconds"):
        sc.Circuit.load(tmp_path / "c.json")


def test_a_file_of_an_earlier_version_keeps_its_checksum(found, tmp_path):
    """Without the form of the loss, and with what was not known written as null."""
    _, task, circuit, _ = found
    content = circuit.model_dump(mode="json", exclude_defaults=True)
    del content["loss"]
    content["found_by"] |= {"nodes_of_the_model": None}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "c.json").write_text(json.dumps(content))
    earlier = sc.Circuit.load(tmp_path / "c.json")
    assert earlier.loss is None
    earlier.check_task(task)


def test_a_task_of_another_form_is_refused(found):
    model, task, circuit, _ = found
    assert circuit.loss == "pair"
    other = dataclasses.replace(task, loss="class")
    for use in (measure, sc.faithfulness):
        with pytest.raises(sc.UserError, match="found with the loss 'pair'"):
            use(model, circuit, other)


def test_a_stale_circuit_is_refused(found):
    _, task, circuit, _ = found
    other = quote_model(Tokenizer.default())
    with torch.no_grad():
        other.lm_head.weight[5, 5] += 1e-3
    for use in (lambda: measure(other, circuit, task), lambda: picture_payload(other, circuit, task)):
        with pytest.raises(sc.UserError, match="belongs to model handmade"):
            use()


def test_nodes_or_values_that_the_model_lacks_are_refused(found):
    model, task, circuit, _ = found
    stray = circuit.nodes[0].model_copy(update={"name": "7.attn.q.1"})
    with pytest.raises(sc.UserError, match="a node that the model lacks"):
        measure(model, circuit.model_copy(update={"nodes": (stray,)}), task)
    broken = {**circuit.frozen, "0.attn.q": "AAAA"}
    with pytest.raises(sc.UserError, match=r"0\.attn\.q"):
        measure(model, circuit.model_copy(update={"frozen": broken}), task)


def test_edges_are_nonzero_weights_between_kept_nodes(found):
    model = found[0]
    more = [*QUOTE_NODES[:1], "0.attn.v.5", *QUOTE_NODES[1:]]
    assert {(e.source, e.target) for e in edges_of(more, model)} == {
        (e.source, e.target) for e in edges_of(QUOTE_NODES, model)
    }
    assert edges_of(["0.mlp.act_in.3"], model) == []


def test_residual_links_join_writes_to_later_reads(found):
    links = residual_links(QUOTE_NODES, found[0].config.d_model)
    assert links == [("0.attn.resid_delta.3", "0.mlp.act_in.3"), ("0.mlp.resid_delta.4", "final_resid.4")]
    assert residual_links(["0.attn.act_in.3", "0.attn.resid_delta.3"], found[0].config.d_model) == []


def test_the_report_says_sufficient_and_necessary(found):
    model, task, circuit, path = found
    report = sc.faithfulness(model, circuit, task)
    assert report.holds_target
    # Without distractors a bag of tokens does the task too, and the card says so.
    assert [text for text in report.warnings if "needs no understanding" not in text] == []
    assert report.sufficiency > 0.8
    assert report.necessity > 0.9
    assert report.random_ablated < 0.2 < report.losses.ablated
    saved = report.save(path.with_name("report.json"))
    assert json.loads(saved.read_text())["task"] == task.name
    assert "all but the circuit" in saved.with_suffix(".md").read_text()


def test_the_report_warns_when_a_node_is_missing(found):
    model, task, circuit, _ = found
    without = circuit.model_copy(update={"nodes": circuit.nodes[:2] + circuit.nodes[3:]})
    report = sc.faithfulness(model, without, task)
    assert not report.holds_target
    assert any("misses its target" in warning for warning in report.warnings)


def test_random_nodes_match_the_circuit_by_site(found):
    model, _, circuit, _ = found
    space = NodeSpace.of(model.config)
    drawn, kept = random_nodes_like(circuit.on(model), torch.Generator().manual_seed(0)), circuit.kept(space)
    assert not (drawn & kept).any()
    assert all(drawn[place].sum() == kept[place].sum() for place in space.slices.values())


def test_the_picture_holds_the_circuit(found):
    model, task, circuit, _ = found
    payload = picture_payload(model, circuit, task).model_dump()
    assert [node["name"] for node in payload["nodes"]] == QUOTE_NODES
    assert payload["summary"]["n_edges"] == 4
    prompt = payload["prompts"][1]
    assert prompt["answer"] == 1
    assert len(payload["nodes"][0]["activations"][1]) == len(prompt["tokens"])
    assert prompt["circuit"][1] > prompt["circuit"][0]
    reads = [
        {"token": task.tokenizer.token(i), "token_id": i, "target": "0.attn.act_in.0", "weight": 10.0}
        for i in sorted(openers(task.tokenizer))
    ]
    shown = {token for prompt in payload["prompts"] for token in prompt["tokens"]}
    assert payload["embedding"] == [read for read in reads if read["token"] in shown]
    assert len(payload["embedding"]) >= 2
    assert payload["logits"] == [{"source": "final_resid.4", "answer": 1, "weight": 6.0}]
    pattern = payload["attention"][0]["patterns"][0]
    assert sum(pattern[-1]) == pytest.approx(1, abs=0.01)  # kept to three decimals
    assert "0.mlp.post_act.5" in render_html(payload)
