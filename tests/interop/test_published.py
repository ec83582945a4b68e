"""Published circuits become circuits of ours: read from the file alone, joined with their model, and shown."""

import json
import math
import urllib.request

import pytest
import torch

import sparsecircuits as sc
from publishedfile import CIRCUIT_LOSS, LOSS, viz_data, write_viz_data
from sparsecircuits.circuits.losses import measure
from sparsecircuits.cli import main
from sparsecircuits.interop import published
from sparsecircuits.interop.circuit_files import circuit_files, load_circuit
from sparsecircuits.interop.published import read_published
from sparsecircuits.models.storage import save_native
from sparsecircuits.planted.models import QUOTE_EDGES, QUOTE_NODES
from sparsecircuits.runs import card_path
from sparsecircuits.viewer.server import serve


@pytest.fixture(scope="module")
def model(handmade_run):
    return sc.load_model(handmade_run)


@pytest.fixture
def file(model, tmp_path):
    return write_viz_data(viz_data(model), tmp_path)


def rewritten(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return read_published(path)


def test_what_the_file_holds(file, tmp_path):
    circuit = read_published(file)
    assert circuit.node_names == QUOTE_NODES
    assert {(edge.source, edge.target): edge.weight for edge in circuit.edges} == QUOTE_EDGES
    for edge in circuit.edges:
        assert edge.importance == pytest.approx(edge.weight / 10)
    for place, node in enumerate(circuit.nodes):
        assert node.importance == pytest.approx(0.1 * (place + 1), abs=1e-6)
        assert node.mean is None
    assert circuit.nodes[1].head == 0
    assert (circuit.task, circuit.model_name) == ("single_double_quote", "csp_tiny")
    assert circuit.answers == sc.get_task("single_double_quote").answers
    losses = circuit.found_by.published_losses.model_dump(exclude_none=True)
    assert losses == {"circuit": pytest.approx(CIRCUIT_LOSS), "full": pytest.approx(LOSS)}
    assert circuit.found_by.nodes_of_the_model == 999
    assert circuit.found_by.prune_config["k_coef"] == 1e-4
    saved = circuit.save(tmp_path / "circuit.json")
    assert sc.Circuit.load(saved) == circuit == load_circuit(saved)
    json.loads(saved.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_without_weights_edges_are_the_pairs_that_matter(file):
    circuit = rewritten(file, lambda content: content["importances"].pop("pair_data_connections"))
    assert {(edge.source, edge.target) for edge in circuit.edges} == set(QUOTE_EDGES)
    assert {edge.weight for edge in circuit.edges} == {None}
    assert circuit.edges[1].importance == pytest.approx(0.8)


def test_other_layouts_of_the_same_content(file, model):
    expected = read_published(file)

    def nested(content):
        content["importances"]["pair_data"] = [content["importances"]["pair_data"]]

    def masks(content):
        for site, channels in content["circuit_data"].items():
            mask = torch.zeros(model.config.site_width(site.partition(".")[2] or site), dtype=torch.bool)
            mask[channels] = True
            content["circuit_data"][site] = mask

    def bias(content):
        matrix, sources, targets, ends = content["importances"]["pair_data"][0]
        row = torch.cat((matrix, torch.ones(1, 1)))
        content["importances"]["pair_data"][0] = (row, [*sources, "bias"], targets, list(ends))

    def tensors(content):
        losses = content["importances"]["ch_interv_losses"]
        losses.update({site: torch.tensor(values, dtype=torch.float64) for site, values in losses.items()})
        content["circuit_data"]["prune_config"] = {"k": 3}

    whole = file.read_bytes()
    for change in (nested, masks, bias, tensors):
        file.write_bytes(whole)
        assert rewritten(file, change) == expected, change.__name__


def test_channels_keep_their_own_importance_in_any_order(file):
    def more(content):
        content["circuit_data"]["0.mlp.post_act"] = torch.tensor([30, 5, 12])
        losses = content["importances"]["ch_interv_losses"]["0.mlp.post_act"]
        content["importances"]["ch_interv_losses"]["0.mlp.post_act"] = [9.0, *losses, 7.0]
        content["importances"]["pair_data"] = content["importances"]["pair_data_connections"] = []

    found = {node.name: node.importance for node in rewritten(file, more).nodes if node.site == "mlp.post_act"}
    assert list(found) == ["0.mlp.post_act.5", "0.mlp.post_act.12", "0.mlp.post_act.30"]
    assert found["0.mlp.post_act.5"] == pytest.approx(0.5)
    assert found["0.mlp.post_act.30"] == pytest.approx((9 - 2 * CIRCUIT_LOSS) / 2)
    assert found["0.mlp.post_act.12"] == pytest.approx((7 - 2 * CIRCUIT_LOSS) / 2)


def test_with_its_model_it_runs_like_ours(file, model, handmade_run, tmp_path, capsys):
    target = tmp_path / "out" / "circuit.json"
    with pytest.raises(SystemExit) as done:
        main(["convert", str(file), str(target), "--to", "native", "--model", str(handmade_run), "--json"])
    assert done.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n_nodes"], said["n_edges"], said["task"]) == (7, 4, "single_double_quote")
    circuit = sc.Circuit.load(target)
    circuit.check_model(model)
    assert {(edge.source, edge.target): edge.weight for edge in circuit.edges} == QUOTE_EDGES
    assert circuit.edges[0].importance == pytest.approx(0.1)
    assert all(math.isfinite(node.mean) for node in circuit.nodes)
    losses = measure(model, circuit, sc.get_task(f"{circuit.task}.plain", model.tokenizer), n_pairs=16)
    assert losses.circuit < 0.05  # by construction the circuit does the whole task
    assert losses.ablated > 0.6


def test_its_card_is_that_of_the_converted_circuit(file, model, handmade_run, tmp_path, capsys, monkeypatch):
    """Read once; frozen at the means over the model's own text, as `convert` has them."""

    def ran(*typed):
        with pytest.raises(SystemExit) as done:
            main([*map(str, typed), "--json"])
        said = capsys.readouterr()
        assert done.value.code == 0, said.err
        return json.loads(said.out)

    def counted(path, what):
        reads.append(path)
        return load_plain(path, what)

    reads, load_plain = [], published.load_plain
    monkeypatch.setattr(published, "load_plain", counted)
    [card] = ran("report", file, "--model", handmade_run)["reports"]
    assert reads == [file]
    assert card["path"] == str(card_path(file))
    converted = tmp_path / "single_double_quote" / "circuit.json"
    ran("convert", file, converted, "--to", "native", "--model", handmade_run)
    [expected] = ran("report", converted, "--model", handmade_run)["reports"]
    timed = ("path", "circuit", "seconds")
    assert {k: v for k, v in card.items() if k not in timed} == {k: v for k, v in expected.items() if k not in timed}
    assert (
        card["losses"]["circuit"]
        == measure(model, sc.Circuit.load(converted), sc.get_task("single_double_quote", model.tokenizer)).circuit
    )


def test_no_card_without_the_text_that_its_means_are_of(file, model, tmp_path, capsys):
    save_native(model, tmp_path / "run", {})
    with pytest.raises(SystemExit) as done:
        main(["report", str(file), "--model", str(tmp_path / "run")])
    assert done.value.code == 1
    assert "holds no ablation values" in capsys.readouterr().err
    assert not card_path(file).exists()


def test_what_cannot_run_says_why(file, model, handmade_run, tmp_path):
    with pytest.raises(sc.UserError, match="does not hold its model csp_tiny"):
        read_published(file).check_model(model)
    with pytest.raises(sc.UserError, match="holds no ablation values"):
        measure(model, read_published(file, model), sc.get_task("single_double_quote", model.tokenizer))
    for arguments, words in (
        ([str(tmp_path / "a.json"), "--to", "hf"], "native alone"),
        ([str(tmp_path / "a.json"), "--to", "native", "--data", "stdlib"], "--data needs --model"),
        ([str(file), "--to", "native"], "there already"),
    ):
        with pytest.raises(SystemExit):
            main(["convert", str(file), *arguments])
        assert not (tmp_path / "a.json").exists(), words
    with pytest.raises(SystemExit):
        main(["convert", str(handmade_run), str(tmp_path / "b"), "--to", "native", "--data", "stdlib"])
    assert not (tmp_path / "b").exists()


def get(server, path):
    with urllib.request.urlopen(server.url + path) as answer:
        return json.load(answer)


def test_the_viewer_shows_it(file, tmp_path, handmade_run):
    other = file.parents[1] / "64" / "viz_data.pt"
    other.parent.mkdir()
    other.write_bytes(file.read_bytes()[:900])
    for place in (tmp_path / "viz", tmp_path / "viz" / "csp_tiny", file.parent.parent):
        assert circuit_files(place) == [other, file]
    server = serve([other, file], model=handmade_run)
    try:
        damaged, listed = get(server, "api/circuits")["circuits"]
        assert "damaged" in damaged["problem"]
        assert listed["problem"] is None
        assert (listed["task"], listed["n_nodes"], listed["n_edges"]) == ("single_double_quote", 7, 4)
        assert listed["loss"] == pytest.approx(CIRCUIT_LOSS)
        page = get(server, f"api/circuits/{listed['id']}")
        assert [node["name"] for node in page["nodes"]] == QUOTE_NODES
        assert page["summary"]["loss_full"] == pytest.approx(LOSS)
        assert len(page["edges"]) == 4
        assert page["residual"]
        assert "no ablation values" in page["problem"]
    finally:
        server.close()
