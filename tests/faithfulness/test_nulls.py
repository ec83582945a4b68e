"""Nulls that the model can do, random nodes that are joined, and what the verdict makes of them."""

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.circuits.losses import measure
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.card.verdict import CHECKS, judge
from sparsecircuits.faithfulness.measures.runs import final_logits
from sparsecircuits.faithfulness.measures.said import Said, never_said, said
from sparsecircuits.faithfulness.null_tasks import Unsaid, loss_of_model
from sparsecircuits.faithfulness.nulls import joined_nodes, null_controls
from sparsecircuits.nodes.edges import edges_between
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.faults import FAULTS, card_of, circuit_of
from sparsecircuits.planted.models import LEAK_EVERY, QUOTE_NODES, answers, leaking_model, quote_model
from sparsecircuits.pruning.config import PruneConfig

TINY_BUDGET = PruneConfig(steps=20, pairs=8, eval_pairs=8, lr=2e-2)


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


def controls(channel, task):
    model = leaking_model(Tokenizer.default(), channel)
    circuit = circuit_of(model, task, QUOTE_NODES)
    nulls = null_controls(circuit.on(model), task, config=TINY_BUDGET)
    return model, circuit, nulls, {null.name: null for null in nulls.nulls}


def as_small(nulls, cipher):
    """The nulls where the cipher's circuit is as small as the true one: what small budgets find varies."""
    small = cipher.model_copy(update={"n_edges": nulls.true.n_edges, "times_smaller": 1.0})
    return nulls.model_copy(update={"nulls": tuple(small if null == cipher else null for null in nulls.nulls)})


@pytest.fixture(scope="module")
def elsewhere(task):
    """Tokens that are never said read a way of their own."""
    return controls(5, task)


def test_what_is_never_said_and_what_is(task):
    batch, logits = task.batch("train", 4), torch.zeros(8, 100)
    logits[:, 7] = 3.0
    assert set(never_said(logits.softmax(dim=1), (1, 2))) == {*range(100)} - {1, 2, 7}
    model = quote_model(Tokenizer.default())
    found = said(final_logits(model, batch), batch)
    assert found.chance == pytest.approx(1 / 2048)
    assert 0.2 < found.probability < 1
    assert found.ever
    assert not Said(probability=0.9 * found.chance, chance=found.chance).ever


def test_the_answers_of_a_cipher_are_never_said_and_tell_the_prompts_apart(task):
    model = leaking_model(Tokenizer.default(), 4)
    unsaid = Unsaid.of(model, task)
    for seed in range(3):
        cipher = unsaid.cipher(seed)
        batch, plain = cipher.batch("validation", 16), task.batch("validation", 16)
        assert (batch.tokens == plain.tokens).all()
        assert not set(batch.answers) & set(answers(task.tokenizer))
        assert not said(final_logits(model, batch), batch).ever
        assert any(token % LEAK_EVERY == 0 for token in batch.answers)
        assert loss_of_model(model, cipher) < 0.1
    assert unsaid.cipher(0).batch("train", 4).answers != unsaid.cipher(1).batch("train", 4).answers
    plain = quote_model(Tokenizer.default())  # where nothing leaks the best of them tells nothing apart
    assert loss_of_model(plain, Unsaid.of(plain, task).cipher(0)) > 0.5


def test_answers_are_borrowed_only_of_a_task_that_the_model_does(task):
    """The hand-made model does no other task, though another task's answers may tell its prompts apart."""
    model = leaking_model(Tokenizer.default(), 4)
    assert Unsaid.of(model, task).of_another_task(0.15) is None
    borrowed = Unsaid.of(model, task).of_another_task(0.75)  # a target that says nothing
    assert borrowed.name.startswith("single_double_quote.plain, answers of ")


def test_a_circuit_as_small_for_what_is_never_said_is_a_rival(elsewhere, task):
    model, circuit, nulls, by_name = elsewhere
    cipher = by_name["cipher"]
    assert cipher.doable(0.15)
    assert cipher.loss_on_task > 0.6
    assert cipher.times_smaller == cipher.n_edges / nulls.true.n_edges > 1
    losses = measure(model, circuit, task)
    assert judge(circuit, losses, nulls)[0] == "distinguishable from null"
    verdict, reasons = judge(circuit, losses, as_small(nulls, cipher))
    assert verdict == "not distinguishable from null"
    assert any("the answers in a cipher, two tokens that the model never says" in reason for reason in reasons)


def test_the_same_circuit_read_off_elsewhere_is_no_rival(task):
    model, circuit, nulls, by_name = controls(4, task)
    cipher = by_name["cipher"]
    assert cipher.doable(0.15)
    assert cipher.loss_on_task < 0.15
    verdict, reasons = judge(circuit, measure(model, circuit, task), as_small(nulls, cipher))
    assert verdict == "distinguishable from null"
    assert any("it is the same one, read off elsewhere" in reason for reason in reasons)


def test_what_the_model_cannot_do_is_said_to_be_no_evidence(elsewhere, task):
    model, circuit, nulls, by_name = elsewhere
    undone = nulls.model_copy(update={"nulls": tuple(by_name[name] for name in ("shuffled_labels", "random_nodes"))})
    verdict, reasons = judge(circuit, measure(model, circuit, task), undone)
    assert verdict == "distinguishable from null"
    assert reasons[0].startswith(f"Of {len(by_name['random_nodes'].curve)} draws of random nodes")
    assert reasons[1] == (
        "What the whole model cannot do is no evidence by itself (shuffled labels); random nodes are all there is to "
        "compare with."
    )
    assert [null.doable(0.15) for null in (by_name["nonsense"], by_name["permuted_weights"])] == [False, False]


def test_random_nodes_are_joined_as_far_as_there_are_edges(task):
    model = quote_model(Tokenizer.default())
    space = NodeSpace.of(model.config)
    kept = space.mask(QUOTE_NODES)
    everywhere = edges_between(model, space, torch.ones(space.size, dtype=torch.bool))
    edges = []
    for seed in range(10):
        drawn = joined_nodes(kept, space.slices.values(), everywhere, torch.Generator().manual_seed(seed))
        assert [int(drawn[place].sum()) for place in space.slices.values()] == [
            int(kept[place].sum()) for place in space.slices.values()
        ]
        edges.append(int(everywhere.between(drawn).sum()))
    assert sum(edges) / len(edges) > 1.5  # each by itself: 0.5


def test_random_nodes_have_no_more_edges_than_the_circuit(elsewhere):
    _, circuit, _, by_name = elsewhere
    curve = by_name["random_nodes"].curve
    assert 10 < len(curve) <= 20  # those that hit on the circuit itself are left out
    assert {nodes for nodes, _, _ in curve} == {len(circuit.nodes)}
    assert max(edges for _, edges, _ in curve) <= len(circuit.edges)


@pytest.mark.parametrize("words", ["right on the templates by an unrelated cue", "answers that the model never says"])
def test_planted(words):
    [fault] = [fault for fault in FAULTS if fault.words == words]
    card = card_of(fault, PruneConfig(steps=4, pairs=4, eval_pairs=8))
    failed = {name for name, check in CHECKS.items() if check(card) is False}
    assert set(fault.caught) <= failed
    assert not set(fault.spared) & failed
