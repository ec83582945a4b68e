"""One bar for all that runs: a biased model orders every pair rightly, and is neither refused nor called sufficient."""

import json
import math

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.circuits.losses import measure
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.card.verdict import judge
from sparsecircuits.faithfulness.measures.runs import final_logits, losses_of
from sparsecircuits.faithfulness.null_tasks import shuffled_labels
from sparsecircuits.faithfulness.nulls import prompt_means
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import calibrate, training_pairs
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits, in_order, pick_answers, task_loss
from sparsecircuits.nodes.task_score import score_on_task
from sparsecircuits.planted.faults import circuit_of, with_frozen
from sparsecircuits.planted.models import QUOTE_NODES, quote_model
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.tasks import load_task_file
from sparsecircuits.viewer.peek import file_payload

QUICK = PruneConfig(steps=40, pairs=8, eval_pairs=24, restarts=0, lr=4e-2)


def biased_model(by: float = 20.0):
    """The quote model that says `')` far too often: every pair in order, and a raw loss above chance."""
    model = quote_model(Tokenizer.default())
    with torch.no_grad():
        model.logit_bias[model.tokenizer.single_token("')")] += by
    return model


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


@pytest.fixture(scope="module")
def biased(task):
    model = biased_model()
    return model, sc.prune(model, task, means=prompt_means(model, task), config=QUICK)


def test_order_is_what_no_bias_changes():
    correct = torch.tensor([0, 1] * 3)
    logits = torch.tensor([[2.0, 0], [0, 0], [1, 0], [1, 0], [0, 0], [3, 0]])  # right, a tie, wrong
    assert in_order(logits, correct) == 0.5
    assert in_order(7 * logits + torch.tensor([0.0, 30.0]), correct) == 0.5
    assert in_order(logits[:2], correct[:2]) == 1.0
    assert in_order(logits[:2], 1 - correct[:2]) == 0.0


def test_what_says_the_same_of_all_prompts_is_at_chance_once_calibrated():
    correct, logits = torch.tensor([0, 1] * 8), torch.tensor([[5.0, 1.0]] * 16)
    assert task_loss(calibrate(logits, correct)(logits), correct).item() == pytest.approx(math.log(2), abs=1e-6)


def test_a_biased_model_is_scored_raw_and_calibrated(task):
    row = score_on_task(biased_model(), task, "held_out", 32, 0)
    assert row["loss"] > 1 > 0.1 > row["loss_calibrated"]
    assert row["order"] == 1.0


def test_a_biased_model_has_its_circuit(biased):
    _, circuit = biased
    assert circuit.node_names == QUOTE_NODES
    losses = circuit.losses
    assert losses.full > 1 > 0.1 > losses.full_calibrated
    assert losses.circuit_raw > 1 > 0.15 >= losses.circuit
    assert losses.empty > 1
    assert losses.empty_calibrated == pytest.approx(math.log(2), abs=1e-3)
    assert losses.ablated_calibrated == pytest.approx(math.log(2), abs=1e-3)
    assert (losses.order, losses.order_full, losses.order_empty) == (1, 1, 0.5)
    assert losses.order_ablated < 0.9


def test_a_model_that_misses_the_target_is_refused_with_both_losses(task):
    model = quote_model(Tokenizer.default())
    with torch.no_grad():
        model.lm_head.weight[model.tokenizer.single_token('")'), 4] = 0.0
    with pytest.raises(sc.UserError, match=r"is 0\.693 calibrated \(\d\.\d+ raw\), above the target 0\.15"):
        sc.prune(model, task, means=prompt_means(model, task), config=QUICK)


def test_the_calibration_is_of_training_prompts(task):
    model = quote_model(Tokenizer.default())
    train, other = task.batch("train", 24), task.batch("validation", 24)
    evaluate = Evaluator(model, prompt_means(model, task), train, other)
    kept = NodeSpace.of(model.config).mask(QUOTE_NODES)
    logits = evaluate.logits(kept)
    assert evaluate(kept).calibration == calibrate(logits[0], torch.from_numpy(train.correct))
    assert (training_pairs(task, 24).tokens == train.tokens).all()


def test_circuits_of_before_still_load(biased, tmp_path):
    model, circuit = biased
    raw = json.loads(circuit.save(tmp_path / "circuit.json").read_text())
    new = ("circuit_raw", "full_calibrated", "empty_calibrated", "ablated_calibrated")
    raw["losses"] = {k: v for k, v in raw["losses"].items() if k not in new and not k.startswith("order")}
    before = circuit.model_copy(update={"losses": type(circuit.losses)(**raw["losses"])})
    raw["checksum"] = before.checksum()
    (tmp_path / "old.json").write_text(json.dumps(raw))
    loaded = sc.Circuit.load(tmp_path / "old.json")
    assert loaded.losses.full_calibrated is None
    assert loaded.losses.rows[1][1:] == (None, circuit.losses.full, None)
    assert measure(model, loaded, sc.get_task(loaded.task)) == circuit.losses


def test_the_card_of_a_biased_model_compares_like_with_like(biased, task):
    model, circuit = biased
    card = sc.faithfulness(model, circuit, task)
    assert card.holds_target
    assert card.outputs.agreement.value == 1.0  # raw, the model says `')` of every prompt
    assert card.necessity_test.breaks
    assert 0.9 < card.sufficiency <= 1.1
    assert card.losses.model_dump() == pytest.approx(circuit.losses.model_dump(), abs=1e-4)
    [warning] = [text for text in card.warnings if "needs no understanding" not in text]
    assert "raw answer is biased: it puts 100% of the pairs in the right order, but its raw loss is" in warning
    assert {row.order_model for row in card.splits} == {1.0}
    assert all(row.raw_model > 1 > 0.1 > row.loss_model.value for row in card.splits)
    page = card.to_markdown()
    assert "| what runs | loss, calibrated (nats) | loss, raw | pairs in the right order |" in page
    assert f"| whole model | {card.losses.full_calibrated:.4f} | {card.losses.full:.4f} | 100.0% |" in page


def test_a_bias_is_no_necessity(task):
    """Without nodes that only hold a bias back the model orders every pair: they are not what does the task."""
    model = quote_model(Tokenizer.default())
    circuit = circuit_of(model, task, ["0.mlp.resid_delta.9"])
    with torch.no_grad():
        model.lm_head.weight[model.tokenizer.single_token("')"), 9] = 1.0
    values = with_frozen(circuit, "0.mlp.resid_delta.9", 2000.0)
    values = values.model_copy(update={"model_id": content_hash(model)})
    losses = measure(model, values, task)
    assert losses.ablated > 2 * losses.ablated_calibrated
    assert losses.order_ablated == 1.0


def test_no_circuit_is_needed_where_nothing_holds_the_target(biased):
    circuit = biased[1]
    nothing = circuit.model_copy(update={"nodes": (), "edges": ()})
    done = {"full_calibrated": 0.01, "empty_calibrated": 0.02, "circuit": 0.02}
    verdict, [reason] = judge(nothing, circuit.losses.model_copy(update=done), None)
    assert verdict == "no circuit needed"
    assert "With every node frozen the loss is 0.020" in reason
    assert judge(circuit, circuit.losses.model_copy(update=done), None)[0] == "no circuit needed"
    assert judge(nothing, circuit.losses, None)[0] == "no circuit needed"
    assert judge(nothing, circuit.losses.model_copy(update={"circuit": 0.69}), None)[0].startswith("not")


def test_a_loss_over_a_class_is_of_the_whole_vocabulary(tmp_path):
    """−log p and −log(1 − p), by every way to a circuit's logits; written to task files and read back."""
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=2048, n_ctx=128, n_layer=1, d_model=16, d_head=4, d_mlp=32)
    model, task = SparseTransformer(config).eval(), sc.get_task("else_elif")
    assert task.loss == "class"
    batch = task.batch("train", 8)
    p = final_logits(model, batch).softmax(dim=-1)[:, batch.answers[0]]
    expected = -torch.where(torch.from_numpy(batch.correct) == 0, p, 1 - p).log()
    torch.testing.assert_close(losses_of(pick_answers(final_logits(model, batch), batch), batch), expected)
    torch.testing.assert_close(losses_of(all_candidate_logits(model, batch), batch), expected)
    space = NodeSpace.of(config)
    evaluate = Evaluator(model, torch.zeros(space.size), batch)
    [compact] = evaluate.logits(torch.ones(space.size, dtype=torch.bool))
    torch.testing.assert_close(losses_of(compact, batch), expected, atol=1e-4, rtol=1e-4)
    own = load_task_file(sc.write_task_file(task, tmp_path / "own.jsonl", 8))
    assert (own.loss, shuffled_labels(task, 0).batch("train", 4).over_class) == ("class", True)
    text = (tmp_path / "own.jsonl").read_text()
    (tmp_path / "own.jsonl").write_text(text.replace('"class"', '"clas"', 1))
    with pytest.raises(sc.UserError, match="line 1: no loss 'clas'"):
        load_task_file(tmp_path / "own.jsonl")


def test_the_page_shows_calibrated_losses_beside_raw_ones(biased):
    summary, losses = file_payload(biased[1]).summary, biased[1].losses
    assert (summary.loss_full, summary.loss_full_calibrated) == (losses.full, losses.full_calibrated)
    assert (summary.loss_ablated, summary.loss_ablated_calibrated) == (losses.ablated, losses.ablated_calibrated)
