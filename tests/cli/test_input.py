"""What is typed wrong is told in one line before any work: names, paths, files that are something else."""

import json
import shutil
from pathlib import Path

import pytest

import sparsecircuits as sc
from sparsecircuits.cli import arguments, main
from sparsecircuits.cli.show import print_table
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import near
from sparsecircuits.interop import pretrained
from sparsecircuits.interop.released import save_released
from sparsecircuits.models.storage import save_native
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.faults import circuit_of
from sparsecircuits.planted.models import QUOTE_NODES, quote_model
from sparsecircuits.runs import card_path


@pytest.fixture(scope="module")
def run_with_circuits(tmp_path_factory):
    """A run directory with the circuit of the hand-made quote model, twice."""
    run = tmp_path_factory.mktemp("runs") / "quotes"
    model = quote_model(Tokenizer.default())
    save_native(model, run, {})
    circuit = circuit_of(sc.load_model(run), sc.get_task("single_double_quote"), QUOTE_NODES)
    for name in ("one", "two"):
        circuit.save(run / "circuits" / name / "circuit.json")
    return run


def fails(capsys, *typed, code=1):
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in typed])
    assert ended.value.code == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_wrong_names_say_the_nearest(capsys, run_with_circuits):
    assert near("if_equal", ["if_equals", "var_if", "x"]) == " (did you mean if_equals?)"
    assert near("q" * 10**6, ["if_equals"]) == ""
    assert "no task 'if_equal' (did you mean if_equals?); there are" in fails(capsys, "tasks", "if_equal")
    assert "no command 'trian' (did you mean train?)" in fails(capsys, "trian", code=2)
    for option in (["--preset", "huge"], ["--preset=nanno"]):
        line = fails(capsys, "train", *option, "--out", "never", code=2)
        assert "there are nano, micro, small, paper" in line
    assert "'nanno' (did you mean nano?)" in line
    model = sc.load_model(run_with_circuits)
    for name, wanted in (("0.mlp.post_acts.3", "0.mlp.post_act.3"), ("final_residue.2", "final_resid.2")):
        with pytest.raises(sc.UserError, match=rf"there is no node .*did you mean {wanted}"):
            NodeSpace.of(model.config).mask([name])
    with pytest.raises(sc.UserError, match=r"did you mean 0\.attn\.q"), sc.record(model, "0.attn.qq"):
        pass


def test_help_does_not_depend_on_how_python_keeps_docstrings(monkeypatch):
    import inspect

    before = arguments.overview()
    for kind in arguments.COMMANDS.values():
        monkeypatch.setattr(kind, "__doc__", inspect.cleandoc(kind.__doc__))  # as the compiler does from 3.13 on
    assert arguments.overview() == before


def test_paths_are_checked_before_any_work(capsys, run_with_circuits, tmp_path, monkeypatch):
    from sparsecircuits.interop import loading

    monkeypatch.setattr(loading, "load_model", lambda *_a, **_k: pytest.fail("a model was loaded first"))
    circuit, file = run_with_circuits / "circuits" / "one" / "circuit.json", tmp_path / "file"
    file.write_text("")
    for words, typed in {
        "no folder at /nope/corpus": ("report", circuit, "--corpus", "/nope/corpus"),
        "no model at /nope/model": ("report", circuit, "--model", "/nope/model"),
        "no circuit at /nope/c.json": ("report", circuit, "/nope/c.json"),
        "no folder at /nope/code": ("tasks", "--model", run_with_circuits, "--corpus", "/nope/code"),
        "no task file at /nope/t.jsonl": ("prune", run_with_circuits, "--task-file", "/nope/t.jsonl"),
        "no model at /nope/other": ("prune", run_with_circuits, "if_equals", "--beside", "/nope/other"),
        f"{file} is no folder": ("prune", run_with_circuits, "if_equals", "--out", file / "x"),
        "unknown corpus": ("eval", run_with_circuits, "--data", "/nope/data"),
        "no model at ~nosuchuser/x": ("eval", "~nosuchuser/x"),
        'unknown corpus "~nosuchuser/x"': ("train", "--data", "~nosuchuser/x", "--steps", 1, "--out", tmp_path / "t"),
        "no model at /nope/view": ("view", run_with_circuits, "--model", "/nope/view"),
    }.items():
        assert words in fails(capsys, *typed)


def test_view_takes_circuits_alone(capsys, run_with_circuits):
    for name in ("model.safetensors", "config.json"):
        line = fails(capsys, "view", run_with_circuits / name, "--no-open")
        assert f"{name} is no circuit that can be read" in line


class Card:
    """A faithfulness card that takes no time."""

    def save(self, path):
        return path

    def model_dump(self, mode):
        return {}


class Server:
    """A server that is gone at once."""

    url = "http://127.0.0.1"

    def wait(self):
        pass


@pytest.fixture
def shown(monkeypatch, capsys):
    """What a command's JSON is, measuring and serving left out."""
    from sparsecircuits.faithfulness import report as faithfulness
    from sparsecircuits.viewer import server

    monkeypatch.setattr(faithfulness, "faithfulness", lambda *_a, **_k: Card())
    monkeypatch.setattr(server, "serve", lambda *_a, **_k: Server())

    def run(*typed):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, typed), "--json"])
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return json.loads(said.out)

    return run


@pytest.fixture
def released_run(run_with_circuits, tmp_path):
    """The circuits beside the same model in the released format."""
    model = sc.load_model(run_with_circuits)
    save_released(model, tmp_path / "released")
    shutil.copytree(run_with_circuits / "circuits", tmp_path / "released" / "circuits")
    return tmp_path / "released"


@pytest.mark.parametrize("place", ["", "circuits", "circuits/one", "circuits/one/circuit.json", ".."])
@pytest.mark.parametrize("kind", ["run_with_circuits", "released_run"])
def test_report_takes_what_view_takes(shown, request, kind, place):
    given = request.getfixturevalue(kind) / place
    seen = [Path(path) for path in shown("view", given, "--no-open")["circuits"]]
    reports = [report["path"] for report in shown("report", given)["reports"]]
    assert [path.parent.name for path in seen] == (["one"] if "one" in place else ["one", "two"])
    assert reports == [str(card_path(path)) for path in seen]


def test_both_take_the_name_of_a_shipped_model(shown, run_with_circuits, monkeypatch):
    monkeypatch.setattr(pretrained, "root", lambda: run_with_circuits.parent)
    monkeypatch.setattr(arguments, "folder_of", lambda _: run_with_circuits)
    assert len(shown("view", "pretrained:quotes", "--no-open")["circuits"]) == 2
    assert [report["path"] for report in shown("report", "pretrained:quotes")["reports"]] == [None, None]


def test_tables_show_brackets_as_they_are(capsys):
    print_table("[bold]title[/bold]", ["a [b]"], [["x = [[1], [2]]"], ["[red]"], ["[/]"], ["\\["]])
    shown = capsys.readouterr().out
    for text in ("[bold]title[/bold]", "a [b]", "x = [[1], [2]]", "[red]", "[/]"):
        assert text in shown
    assert shown.count("\\") == 1


def test_real_code_without_places_is_one_line(capsys, run_with_circuits, tmp_path):
    (tmp_path / "a.py").write_text("# for x in y:\nz = 'while x:'\n")
    on_it = ("--model", run_with_circuits, "--corpus", tmp_path)
    assert f"{tmp_path}: no place for each answer of for_while" in fails(capsys, "tasks", "for_while", *on_it)
    assert "no place for each answer of single_double_quote, final_kwarg" in fails(capsys, "tasks", *on_it)
    assert "n must be at least 1, got 0" in fails(capsys, "tasks", "for_while", *on_it, "--n", 0)
