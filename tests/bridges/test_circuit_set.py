"""Circuits by prompt: who is picked, what runs then, and what it costs."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from madecircuits import circuit_of
from randommodels import random_model
from sparsecircuits.bridges.circuit_set import CircuitSet
from sparsecircuits.bridges.picking import FALL_BACK, SparseClassifier
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.nodes.task_loss import all_candidate_logits
from sparsecircuits.planted.models import QUOTE_EDGES, QUOTE_NODES, quote_model

NAMES = ("single_double_quote.plain", "class_init", "indent_for")


@dataclass(frozen=True)
class Given:
    picks: torch.Tensor
    weights: int = 7
    boundary: int = 0

    def __call__(self, model, batch):
        return self.picks[: len(batch.last)]


@pytest.fixture(scope="module")
def model():
    return quote_model(Tokenizer.default())


@pytest.fixture(scope="module")
def batches(model):
    tasks = [sc.get_task(name, model.tokenizer or Tokenizer.default()) for name in NAMES]
    return {
        split: [task.encode(task.draw(split, 48)) for task in tasks] for split in ("train", "validation", "held_out")
    }


def test_prompts_of_other_templates_are_told_apart_and_others_fall_back(model, batches):
    known, more = batches["train"][:2], batches["validation"][:2]
    model = random_model(ModelConfig(vocab_size=model.config.vocab_size, n_ctx=128, n_layer=1, d_model=128, d_mlp=8))
    rule = SparseClassifier.learn(model, known, more, [batches["train"][2]])
    for place, batch in enumerate(batches["held_out"]):
        expected = FALL_BACK if place == 2 else place
        assert (rule(model, batch) == expected).float().mean() > 0.85, NAMES[place]
    # Three groups, two of them circuits; most features weigh nothing.
    assert rule.weights == int(rule.weight.count_nonzero()) + 3 + 2
    assert rule.weight.count_nonzero() < 0.2 * rule.weight.numel()
    strict = dataclasses.replace(rule, least=torch.full((2,), torch.inf).to(rule.least))
    assert (strict(model, batches["train"][0]) == FALL_BACK).all()


def test_each_prompt_is_answered_by_what_was_picked_for_it(model, batches):
    batch = batches["held_out"][0]
    circuit = circuit_of(model, QUOTE_NODES, scale=2.0, shift=(0.5, -0.5))
    picks = torch.from_numpy(np.random.default_rng(0).choice([0, FALL_BACK], len(batch.last)))
    both = CircuitSet(model, [circuit], Given(picks))
    whole = all_candidate_logits(model, batch)
    alone = circuit.calibration(all_candidate_logits(model, batch, circuit.gating(model)))
    expected = torch.where((picks == FALL_BACK)[:, None], whole, alone)
    torch.testing.assert_close(both.answer_logits(batch), expected, atol=1e-4, rtol=1e-4)


def test_what_a_prompt_costs(model, batches):
    batch = batches["held_out"][0]
    row = model.wte.weight[torch.from_numpy(np.unique(batch.tokens[0, : batch.last[0] + 1]))].count_nonzero().item()
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith("wte")]
    whole = row + sum(int(p.count_nonzero()) for p in matrices)
    inside = row + len(QUOTE_EDGES) + int(model.lm_head.weight[:, 4].count_nonzero())
    length = int(batch.last[0]) + 1
    some = CircuitSet(model, [circuit_of(model, QUOTE_NODES)], Given(torch.tensor([0])))
    expected = [(inside + 7) / whole, (inside * length + 7) / (whole * length)]
    assert some.touched(batch, torch.tensor([0]))[0].tolist() == pytest.approx(expected)
    all_of_it = some.touched(batch, torch.tensor([FALL_BACK]))[0].tolist()
    assert all_of_it == pytest.approx([(whole + 7) / whole, (whole * length + 7) / (whole * length)])


def test_a_stream_is_measured_task_by_task(model):
    some = CircuitSet(model, [circuit_of(model, QUOTE_NODES)], Given(torch.tensor([0, 0, FALL_BACK, FALL_BACK] * 2)))
    tasks = [sc.get_task(name, Tokenizer.default()) for name in NAMES[:2]]
    own, other = some.measure(tasks, n_pairs=4)
    assert (own["picked"], own["wrong"], own["fell_back"], own["has_circuit"]) == (0.5, 0.0, 0.5, True)
    assert (other["picked"], other["wrong"], other["fell_back"], other["has_circuit"]) == (0.0, 0.5, 0.5, False)
    assert own["accuracy"] == own["accuracy_whole"] == 1.0
    assert own["touched"] < 1


def test_circuits_that_cannot_be_a_set(model):
    circuit = circuit_of(model, QUOTE_NODES)
    with pytest.raises(UserError, match="at least one circuit"):
        CircuitSet(model, [])
    with pytest.raises(UserError, match="for one task"):
        CircuitSet(model, [circuit, circuit])
    with pytest.raises(UserError, match="belongs to model"):
        CircuitSet(model, [circuit.model_copy(update={"model_id": "another"})])
