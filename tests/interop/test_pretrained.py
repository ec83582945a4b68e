"""Models that ship with the package: found by name, checked, never written to."""

import json
import shutil

import pytest

import sparsecircuits as sc
from sparsecircuits.cli import main
from sparsecircuits.files import sha256
from sparsecircuits.interop import pretrained
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.interop.manifest import Manifest, Shipped
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import count_parameters
from sparsecircuits.nodes.task_score import score_on_task
from sparsecircuits.planted.faults import circuit_of
from sparsecircuits.planted.models import QUOTE_NODES
from sparsecircuits.runs import circuit_path, circuits_folder
from sparsecircuits.viewer.library import Library


def shipped(folder, **changes):
    files = {str(p.relative_to(folder)): sha256(p) for p in folder.rglob("*") if p.is_file()}
    fields = {"about": "a model made by hand", "command": "none", "tokens": 0, "hours": 0.0, "machine": "any"}
    fields |= {"parameters": 10, "nonzeros": 5, "validation_loss": 7.0, "content_hash": "x", "files": files}
    fields |= {"tasks": {"single_double_quote": (0.1, 0.05)}, "circuits": {}}
    return Shipped(name=folder.name, **{**fields, **changes})


@pytest.fixture
def store(tmp_path, handmade_run, monkeypatch):
    """A folder of shipped models that holds the hand-made one."""
    root = tmp_path / "pretrained"
    # Other tests leave circuits in that run.
    shutil.copytree(handmade_run, root / "made", ignore=shutil.ignore_patterns("circuits"))
    entry = Manifest(models=(shipped(root / "made"),))
    (root / "manifest.json").write_text(entry.model_dump_json())
    monkeypatch.setattr(pretrained, "root", lambda: root)
    return root


def out_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_a_name_is_taken_wherever_a_run_is(store, handmade_run, capsys, tmp_path):
    assert content_hash(sc.load_model("pretrained:made")) == content_hash(sc.load_model(handmade_run))
    code, out, _ = out_of(capsys, "models", "--json")
    assert code == 0
    assert [m["name"] for m in json.loads(out)["models"]] == ["made"]
    code, out, _ = out_of(capsys, "models", "made")
    assert code == 0
    assert "single_double_quote" in out
    code, out, _ = out_of(
        capsys, "tasks", "single_double_quote.plain", "--model", "pretrained:made", "--n", 16, "--json"
    )
    assert code == 0
    assert json.loads(out)["tasks"][0]["loss"] < 0.1
    code, _, err = out_of(capsys, "convert", "pretrained:made", tmp_path / "hf", "--to", "hf")
    assert code == 0, err


def test_nothing_is_written_among_them(store, capsys):
    before = sorted(store.rglob("*"))
    code, _, err = out_of(capsys, "prune", "pretrained:made", "single_double_quote.plain")
    assert code == 1
    assert "--out" in err
    assert sorted(store.rglob("*")) == before


def test_the_card_of_a_shipped_circuit_is_shown_and_not_saved(store, capsys):
    model = sc.load_model("pretrained:made")
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    circuit_of(model, task, QUOTE_NODES).save(circuit_path(circuits_folder(store / "made"), task.name))
    before = sorted(store.rglob("*"))
    code, out, err = out_of(capsys, "report", "pretrained:made", "--json")
    assert code == 0
    (card,) = json.loads(out)["reports"]
    assert card["holds_target"]
    assert card["path"] is None
    assert "ships with the package" in err
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [("mada", "did you mean made"), ("../made", "names no pretrained model"), ("", "names no pretrained model")],
)
def test_a_wrong_name_is_one_line(store, capsys, name, words):
    code, out, err = out_of(capsys, "generate", f"pretrained:{name}", "--prompt", "x")
    assert (code, out) == (1, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_a_changed_or_missing_file_is_refused(store):
    weights = store / "made" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(sc.UserError, match="is not the file that shipped"):
        sc.load_model("pretrained:made")
    weights.unlink()
    with pytest.raises(sc.UserError, match="is missing"):
        sc.load_model("pretrained:made")


def test_a_damaged_manifest_is_one_line(store):
    raw = json.loads((store / "manifest.json").read_text())
    raw["models"][0]["tokens"] = "many"
    (store / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(sc.UserError, match=r"is damaged: models\.0\.tokens"):
        sc.load_model("pretrained:made")


def test_an_installation_without_any_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "root", lambda: tmp_path)
    assert "no pretrained models" in out_of(capsys, "models")[1]
    assert "none came with this installation" in out_of(capsys, "eval", "pretrained:nano")[2]


@pytest.mark.parametrize("entry", pretrained.manifest().models, ids=lambda entry: entry.name)
def test_what_ships_is_what_the_manifest_says(entry):
    """Every file, the content, the sizes, circuits that are of this model, and a task's losses."""
    model = sc.load_model(f"pretrained:{entry.name}")
    folder = pretrained.folder_of(f"pretrained:{entry.name}")
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert there == set(entry.files)
    assert content_hash(model) == entry.content_hash
    assert count_parameters(model) == (entry.parameters, entry.nonzeros)
    for task, known in entry.circuits.items():
        circuit = sc.Circuit.load(folder / "circuits" / task / "circuit.json")
        circuit.check_model(model)
        assert (len(circuit.nodes), len(circuit.edges)) == (known.nodes, known.edges)
        assert circuit.model_name == entry.name
    library = Library(circuit_files(folder))
    for record in library.list():
        card = library.card(record.id)  # raises where it cannot be shown
        assert card is not None
        assert card.model_name == entry.name
    best = min(entry.tasks, key=lambda name: entry.tasks[name][1])
    row = score_on_task(model, sc.get_task(best, model.tokenizer), "held_out", 256, 0)
    assert [row["loss"], row["loss_calibrated"]] == pytest.approx(entry.tasks[best], abs=2e-3)
