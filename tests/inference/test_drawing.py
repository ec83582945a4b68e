"""Pictures of circuits from Python: every node and weight is in them, and the same circuit gives the same file."""

from xml.etree import ElementTree

import pytest

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.errors import UserError
from sparsecircuits.inference.drawing import NEGATIVE, POSITIVE, carried, draw_circuit, places
from sparsecircuits.interop.pretrained import folder_of


@pytest.fixture(scope="module")
def circuit():
    return Circuit.load(folder_of("pretrained:nano") / "circuits" / "bracket_brace" / "circuit.json")


def test_an_svg_has_each_node_and_weight(circuit, tmp_path):
    text = draw_circuit(circuit, tmp_path / "picture.svg").read_text(encoding="utf-8")
    ids = {element.get("id") for element in ElementTree.fromstring(text).iter()}
    assert set(circuit.node_names) <= ids
    assert text.count(POSITIVE) + text.count(NEGATIVE) == len(circuit.edges)
    assert draw_circuit(circuit, tmp_path / "again.svg").read_text(encoding="utf-8") == text


def test_weights_lead_up_and_rows_hold_one_site_or_q_k_v(circuit):
    where, rows = places(circuit)
    assert set(where) == set(circuit.node_names)
    assert all(where[edge.source][1] < where[edge.target][1] for edge in circuit.edges)
    assert all(where[a][1] < where[b][1] for a, b in carried(circuit))
    assert rows[0] == "0.attn.act_in"
    assert rows[-1] == "final_resid"


def test_a_png_and_another_ending(circuit, tmp_path):
    assert draw_circuit(circuit, tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"ends in .svg or .png"):
        draw_circuit(circuit, tmp_path / "picture.gif")
