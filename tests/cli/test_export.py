"""The command `export`."""

import json
from xml.etree import ElementTree

import pytest

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.cli import main
from sparsecircuits.interop.loading import load_model
from sparsecircuits.interop.mib import read_mib, to_mib
from sparsecircuits.interop.pretrained import folder_of

CIRCUIT = str(folder_of("pretrained:nano") / "circuits" / "class_init" / "circuit.json")


def run(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", *map(str, arguments)])
    assert ended.value.code == code


def test_every_format(tmp_path, capsys):
    program, graph, copy = tmp_path / "p.py", tmp_path / "c.graphml", tmp_path / "c.json"
    run(CIRCUIT, "--to", "python", "--out", program, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "class_init"
    assert found["lines"] == program.read_text().count("\n") < 200
    run("pretrained:nano", "--task", "class_init", "--to", "graphml", "--out", graph)
    assert ElementTree.parse(graph).getroot().tag.endswith("graphml")
    run(CIRCUIT, "--to", "json", "--out", copy)
    assert Circuit.load(copy) == Circuit.load(CIRCUIT)


@pytest.mark.parametrize("name", ["c.json", "c.pt"])
def test_heads_and_mlps_for_mib(name, tmp_path):
    run(CIRCUIT, "--to", "mib", "--out", tmp_path / name)
    expected = to_mib(Circuit.load(CIRCUIT), load_model("pretrained:nano").config)
    found = read_mib(tmp_path / name)
    assert (found.nodes, found.edges) == (expected.nodes, expected.edges)
    assert found.edges


def test_the_readable_program_states_its_agreement(tmp_path, capsys):
    run(CIRCUIT, "--to", "python", "--readable", "--out", tmp_path / "p.py", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["agreement"] >= 0.95
    assert "'.x'" in (tmp_path / "p.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pretrained:nano", "--to", "json"), "name one with --task"),
        (("pretrained:nano", "--task", "nothing", "--to", "json"), "holds 0 such circuits"),
        ((CIRCUIT, "--to", "mib"), ".json or .pt"),
        ((CIRCUIT, "--to", "json", "--readable"), "--readable is for --to python"),
        (("pretrained:nano", "--task", "else_elif", "--to", "python"), "two scores"),
    ],
)
def test_what_is_refused_in_a_line(arguments, said, tmp_path, capsys):
    run(*arguments, "--out", tmp_path / "x", code=1)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("error:") == 1
    assert not (tmp_path / "x").exists()
