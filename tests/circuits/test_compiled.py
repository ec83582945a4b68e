"""A compiled circuit is the gated model: logits, loss and interventions; of shipped circuits and of random ones."""

import pytest
import torch

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.intervention import Intervention
from sparsecircuits.circuits.run_with import answer_logits, run_with
from sparsecircuits.errors import UserError
from sparsecircuits.interop.loading import load_model
from sparsecircuits.interop.pretrained import folder_of
from sparsecircuits.nodes.task_loss import correct_of, task_loss
from sparsecircuits.tasks import get_task

SHIPPED = [("nano", "single_double_quote"), ("nano", "bracket_brace"), ("apt", "set_or_string_fixedvarname")]


@pytest.fixture(scope="module", params=SHIPPED, ids=str)
def shipped(request):
    name, task = request.param
    model = load_model(f"pretrained:{name}")
    circuit = Circuit.load(folder_of(f"pretrained:{name}") / "circuits" / task / "circuit.json")
    batch = get_task(task, tokenizer=model.tokenizer)
    return model, circuit, batch.encode(batch.draw("held_out", 12, 3))


def by_gates(model, circuit, batch, changes=()):
    outcome = run_with(model, circuit, batch, changes, scope="circuit")
    return answer_logits(circuit, outcome, batch.answers, "circuit")


def test_logits_and_loss_are_the_gated_model_s(shipped):
    model, circuit, batch = shipped
    compiled, expected = circuit.compile(model), by_gates(*shipped)
    torch.testing.assert_close(compiled.logits(batch), expected, atol=1e-4, rtol=1e-4)
    assert compiled.loss(batch) == pytest.approx(task_loss(expected, correct_of(batch)).item(), abs=1e-4)
    assert len(circuit.edges) <= compiled.nonzeros < 100 * len(circuit.edges)  # and AbsTopK's rivals


def test_interventions_are_those_of_run_with(shipped):
    model, circuit, batch = shipped
    compiled, moved = circuit.compile(model), 0
    for place, node in enumerate(circuit.node_names[:: max(1, len(circuit.nodes) // 10)]):
        kind, factor = (("zero", 0.0), ("mean", 0.0), ("scale", 2.5))[place % 3]
        at = None if place % 2 else 0
        changes = [Intervention(kind=kind, target=node, factor=factor, before_last=at)]
        found = compiled.logits(batch, changes)
        torch.testing.assert_close(found, by_gates(model, circuit, batch, changes), atol=2e-4, rtol=2e-4)
        moved += bool((found - compiled.logits(batch)).abs().max() > 1e-3)
    assert moved


def test_what_a_compiled_circuit_does_not_know_is_refused(shipped):
    model, circuit, batch = shipped
    compiled = circuit.compile(model)
    with pytest.raises(UserError, match="run_with"):
        compiled.logits(batch, [Intervention(kind="patch", target=circuit.node_names[0])])
    with pytest.raises(UserError, match="no node"):
        compiled.logits(batch, [Intervention(kind="zero", target="1.mlp.post_act.1023")])
    with pytest.raises(UserError, match="resample"):
        circuit.model_copy(update={"ablation": "resample"}).compile(model)
