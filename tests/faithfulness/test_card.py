"""The faithfulness card: known answers, planted faults, nulls, and numbers that recompute elsewhere."""

import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import forked
import sparsecircuits as sc
from sparsecircuits.circuits.descriptions import f1
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.card.card import Report
from sparsecircuits.faithfulness.card.page import to_html
from sparsecircuits.faithfulness.card.svg import Plot
from sparsecircuits.faithfulness.card.verdict import CHECKS, judge, warnings
from sparsecircuits.faithfulness.measures.corpus import transfer
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.interchange import inputs_of
from sparsecircuits.faithfulness.measures.likeness import correlation, kl
from sparsecircuits.faithfulness.measures.necessity import towards_chance
from sparsecircuits.faithfulness.measures.size_curve import CurvePoint, areas_under
from sparsecircuits.faithfulness.measures.sufficiency import share
from sparsecircuits.faithfulness.null_tasks import nonsense_task, shuffled_labels
from sparsecircuits.faithfulness.nulls import permuted_network
from sparsecircuits.models.storage import save_native
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.donors import Matched
from sparsecircuits.planted.faults import FAULTS, card_of, circuit_of
from sparsecircuits.planted.models import QUOTE_NODES, openers, quote_model
from sparsecircuits.pruning.config import PruneConfig

TINY_BUDGET = PruneConfig(steps=20, pairs=8, eval_pairs=8, lr=2e-2)


@pytest.fixture(scope="module")
def task():
    return sc.get_task("single_double_quote.plain")


@pytest.fixture(scope="module")
def true(task):
    model = quote_model(Tokenizer.default())
    return model, circuit_of(model, task, QUOTE_NODES), task


@pytest.fixture(scope="module")
def card(true, tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    for i in range(40):
        for name, quote in (("a", "'"), ("b", '"')):
            (folder / f"{name}{i}.py").write_text(f"x{i} = f({quote}some words here{quote}) or {i}\n")
    return sc.faithfulness(*true, full=True, corpus=folder, budget=TINY_BUDGET)


def test_functions_at_known_points():
    at = np.asarray
    assert share(at(0.9), at(0.1), at(0.1)) == pytest.approx(1)
    assert np.isnan(share(at(0.1), at(0.1), at(0.9)))
    assert towards_chance(at(math.log(2)), at(0.1)) == pytest.approx(1)
    same = torch.randn(4, 7)
    assert kl(same, same + 3).abs().max() < 1e-6
    assert kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])).item() == pytest.approx(
        0.1438, abs=1e-4
    )
    assert correlation(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)
    assert correlation(np.arange(5.0), np.ones(5)) is None
    assert f1(at([True, True, False]), at([True, False, False])) == pytest.approx(2 / 3)
    straight = [CurvePoint(nodes=n, edges=0, loss=1 - n / 10) for n in range(11)]
    assert areas_under(straight, log=False) == pytest.approx((0.5, 0.5))


def test_intervals_cover_the_mean_and_shrink_with_n():
    torch.manual_seed(0)
    few, many = (estimate(torch.randn(2 * n) + 5) for n in (20, 2000))
    assert few.low < 5 < few.high
    assert many.high - many.low < (few.high - few.low) / 4
    assert estimate(torch.tensor([1.0, 1.0]), of=lambda x: x * np.nan).value is None


def test_donors_are_other_prompts_matched_by_role(task):
    matched = Matched.of(task.batch("held_out", 16))
    pool = matched.pool
    for same_class in (True, False):
        donors = matched.draw(3, same_class=same_class)
        rows = np.arange(len(pool.last))
        assert (donors.place[rows, pool.last] == donors.batch.last).all()
        double = openers(task.tokenizer)
        other = [donors.batch.tokens[i, donors.place[i, matched.contrast[i]]] in double for i in rows]
        quotes = [pool.tokens[i, matched.contrast[i]] in double for i in rows]
        assert quotes == list(pool.correct == 1)
        assert set(other) == set(quotes)  # the place where a pair differs stands for the place where a pair differs
        alike = np.array(other) == np.array(quotes)
        assert alike.all() if same_class else 0.2 < alike.mean() < 0.8
        assert not any((donors.batch.tokens[i] == pool.tokens[i]).all() for i in rows)


def test_the_true_circuit_passes_everything(card):
    assert {name: check(card) for name, check in CHECKS.items()} == dict.fromkeys(CHECKS, True)
    assert card.verdict == "distinguishable from null"
    # Of the task without distractors; with them the rule fails, and the warning is gone.
    (warning,) = card.warnings
    cue = card.shortcut.rule
    assert warning == f"A rule that needs no understanding, {cue}, gets 100% right, the circuit no more than 100%."
    assert f"{cue}, gets 100% of these prompts right; the circuit 100%, the model 100%." in card.to_markdown()
    assert all(control.n_edges is None for control in card.nulls.nulls)
    assert card.nulls.true.n_edges is not None
    drawn = card.nulls.nulls[-1]
    assert (drawn.name, {nodes for nodes, _, _ in drawn.curve}) == ("random_nodes", {7})
    assert 10 < len(drawn.curve) <= 20  # those that hit on the circuit itself are left out
    assert (drawn.times_smaller, drawn.at_least) == (None, False)
    said = f"Of {len(drawn.curve)} draws of random nodes, as many in each site, none holds the target"
    assert said in card.to_markdown()
    undone = {null.name for null in card.nulls.nulls if not null.doable(card.target_loss)}
    assert undone == {"shuffled_labels", "nonsense", "permuted_weights", "cipher"}
    assert [null.curve for null in card.nulls.nulls if null.name == "cipher"] == [()]  # so it was not pruned
    assert "What the whole model cannot do is no evidence by itself (shuffled labels, " in card.to_markdown()
    assert card.answers.ever
    assert card.internals.explained > 0.95
    assert card.interchange.flips_all.value == 1
    assert card.transfer.result.accuracy_circuit == 1.0
    assert card.transfer.places == (40, 40)
    assert (card.transfer.cue, card.transfer.cue_accuracy) == ("('", 1.0)
    assert 'The presence of one token, "(\'", says 100% of the answers there' in card.to_markdown()
    assert [row.name for row in card.splits] == ["train", "validation", "held_out"]
    assert card.losses.ablated > 0.9 * math.log(2) > 0.2 > max(card.necessity_test.random)


def test_nodes_in_words_and_in_two_values(card):
    words = {x.name: x for x in card.descriptions}
    reads = words["0.attn.act_in.0"]
    assert "'(\"'" in reads.words
    assert reads.precision == reads.recall == 1.0
    assert words["final_resid.4"].precision > 0.9
    assert {node.name for node in card.binarised.nodes} == set(QUOTE_NODES)
    assert card.binarised.accuracy > 0.9


def test_inputs_are_where_the_prompt_comes_in(true):
    assert inputs_of(true[1]) == ["0.attn.act_in.0"]


@pytest.mark.parametrize("fault", [FAULTS[1]], ids=lambda fault: fault.words)
def test_planted_faults_are_caught_by_the_right_measure(fault):
    _check(fault, card_of(fault, PruneConfig(steps=4, pairs=4, eval_pairs=8)))


def _check(fault, card):
    failed = {name for name, check in CHECKS.items() if check(card) is False}
    assert set(fault.caught) <= failed
    assert not set(fault.spared) & failed
    if fault.caught:
        assert card.warnings


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_planted_faults_give():
    from sparsecircuits.planted.faults import table

    cards = {}
    for fault in FAULTS:
        cards[fault.words] = card_of(fault)
        _check(fault, cards[fault.words])
    page = Path(__file__).parents[2] / "docs" / "faithfulness.md"
    assert table(cards) in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 20), marks=pytest.mark.slow)])
def test_nonsense_and_permuted_networks_are_told_apart_from_the_true_task(true, seeds):
    """The quick card's part of the verdict, over seeds; the null prunings are the full card's."""
    model, circuit, task = true
    for seed in seeds:
        nonsense, network = nonsense_task(task, seed), permuted_network(model, seed)
        for planted in (
            (model, circuit_of(model, nonsense, QUOTE_NODES), nonsense),
            (network, circuit_of(network, task, QUOTE_NODES), task),
        ):
            assert sc.faithfulness(*planted, seed=seed).verdict == "not distinguishable from null"
        assert sc.faithfulness(model, circuit, task, seed=seed).verdict != "not distinguishable from null"


def test_a_null_that_is_as_small_is_said_to_be(card, true):
    circuit = true[1]
    null = card.nulls.nulls[0].model_copy(update={"n_nodes": 5, "n_edges": 4, "times_smaller": 1.0, "at_least": False})
    verdict, reasons = judge(circuit, card.losses, card.nulls.model_copy(update={"nulls": (null,)}))
    assert verdict == "not distinguishable from null"
    assert "as small a circuit for shuffled labels" in reasons[0]
    larger = null.model_copy(update={"n_edges": 40, "times_smaller": 10.0})
    verdict, reasons = judge(circuit, card.losses, card.nulls.model_copy(update={"nulls": (larger,)}))
    assert (verdict, "10.0 times smaller" in reasons[-1]) == ("distinguishable from null", True)
    undone = card.losses.model_copy(update={"full_calibrated": 0.69})
    assert judge(circuit, undone, None)[0] == "not distinguishable from null"
    unsaid = card.answers.model_copy(update={"probability": 1e-5})
    verdict, reasons = judge(circuit, card.losses, None, unsaid)
    assert (verdict, reasons[0].startswith("The model never says the answers")) == (
        "not distinguishable from null",
        True,
    )


def test_nulls_beside_a_true_task_without_a_circuit_say_nothing(card, true):
    """Where the controls' budget is too small for the task itself, that it finds nothing for a null is no proof."""
    none = {"n_edges": None, "times_smaller": None}
    nulls = card.nulls.model_copy(
        update={
            "true": card.nulls.true.model_copy(update=none),
            "nulls": tuple(null.model_copy(update=none) for null in card.nulls.nulls),
        }
    )
    verdict, [reason] = judge(true[1], card.losses, nulls)
    assert verdict == "not distinguishable from null"
    assert "for the true task either" in reason


def test_nulls_keep_what_they_should(task, true):
    batch, cipher = task.batch("train", 32), nonsense_task(task, 1).batch("train", 32)
    assert (cipher.last == batch.last).all()
    assert len(set(cipher.tokens.flatten())) == len(set(batch.tokens.flatten()))
    assert cipher.answers != batch.answers
    shuffled = shuffled_labels(task, 1).batch("train", 32)
    moved = [not (shuffled.tokens[i] == batch.tokens[i]).all() for i in range(0, 64, 2)]
    assert 4 < sum(moved) < 28
    model, other = true[0], permuted_network(true[0], 2)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.flatten().sort().values, b.flatten().sort().values)
    assert not torch.equal(model.wte.weight, other.wte.weight)


def test_every_number_recomputes_in_another_process(true, card, tmp_path):
    model, circuit, _ = true
    save_native(model, tmp_path / "run")
    circuit.save(tmp_path / "circuit.json")
    code = """
import sys, sparsecircuits as sc
from sparsecircuits.pruning.config import PruneConfig
model, circuit = sc.load_model(sys.argv[1]), sc.Circuit.load(sys.argv[2])
task = sc.get_task(circuit.task, model.tokenizer)
budget = PruneConfig(steps=20, pairs=8, eval_pairs=8, lr=2e-2)
card = sc.faithfulness(model, circuit, task, full=True, corpus=sys.argv[3], budget=budget)
print(card.model_dump_json())
"""
    arguments = (tmp_path / "run", tmp_path / "circuit.json", card.transfer.folder)
    done = forked.run(*arguments, code=code, check=True)
    here, there = list(_numbers(card.model_dump(mode="json"))), list(_numbers(json.loads(done.stdout)))
    assert [name for name, _ in here] == [name for name, _ in there]
    assert len(here) > 500
    for (name, value), (_, again) in zip(here, there, strict=True):
        assert again == pytest.approx(value, abs=1e-4), name


def _numbers(value, name=""):
    """All numbers of a JSON value, with where they stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _numbers(inner, f"{name}[{place}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


class _Page(HTMLParser):
    """Collects tags, and complains of anything that would load."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert tag != "script"
        assert not {"src", "href"} & {name for name, _ in attributes}


def test_the_card_as_files(card, tmp_path):
    path = card.save(tmp_path / "report.json")
    assert Report.load(path) == card
    assert json.loads(path.read_text())["schema_version"] == 3
    markdown, text = path.with_suffix(".md").read_text(), path.with_suffix(".html").read_text()
    assert "## Null controls" in markdown
    page = _Page()
    page.feed(text)
    assert page.tags.count("svg") == 4
    assert page.tags.count("table") == markdown.count("\n| --- ")
    assert "default-src 'none'" in text
    assert not re.search(r"\bnan\b|undefined", text)
    path.write_text('{"schema_version": 1}')
    with pytest.raises(sc.UserError, match="report` again"):
        Report.load(path)


@pytest.mark.parametrize("name", ["bracket_counting", "for_while", "while_true_colon"])
def test_any_task_is_tried_on_real_code(true, tmp_path, name):
    model, circuit, _ = true
    for i in range(6):
        code = f"for a{i} in b:\n    c = [{i}, 1]\nwhile d{i}:\n    while True:\n        e = [[{i}], [1, 2]]\n"
        (tmp_path / f"{i}.py").write_text(f"{code}def f{i}():\n    x = {i}\n    return True\n")
    found = transfer(circuit.on(model), sc.get_task(name), Calibration(), tmp_path)
    assert found.places == (6, 6)
    assert found.result.prompts == 12
    assert found.cue_accuracy is not None


def test_a_token_that_says_more_than_the_circuit_is_a_warning(card):
    told = card.transfer.model_copy(update={"cue_accuracy": 0.97})
    worse = told.model_copy(update={"result": told.result.model_copy(update={"accuracy_circuit": 0.9})})
    assert warnings(card.model_copy(update={"transfer": told})) == card.warnings
    better = card.shortcut.model_copy(update={"accuracy": 0.99})
    assert warnings(card.model_copy(update={"shortcut": better})) == []
    assert (
        warnings(card.model_copy(update={"shortcut": card.shortcut.model_copy(update={"by_definition": True})})) == []
    )
    (warning,) = [text for text in warnings(card.model_copy(update={"transfer": worse})) if "one token" in text]
    assert (
        warning
        == 'On real code the presence of one token, "(\'", says 97% of the answers, more than the circuit (90%).'
    )


UNDEFINED = Estimate(value=None)


def _with(card, measure: str, **estimates) -> Report:
    """The card with some estimates of one measure changed."""
    return card.model_copy(update={measure: getattr(card, measure).model_copy(update=estimates)})


@pytest.mark.parametrize(
    ("check", "measure", "estimate_of", "words"),
    [
        ("causal scrubbing", "scrubbing", "loss", "Causal scrubbing leaves a loss of not defined"),
        ("completeness", "completeness", "incompleteness", None),
        ("agreement", "outputs", "agreement", None),
        ("interchange", "interchange", "flips_all", "does to the answers is not defined"),
        ("interchange", "interchange", "accuracy", "does what the circuit predicts is not defined"),
    ],
)
def test_what_is_not_defined_is_no_pass(card, check, measure, estimate_of, words):
    changed = _with(card, measure, **{estimate_of: UNDEFINED})
    assert CHECKS[check](changed) is False
    told = warnings(changed)
    assert words is None or [line for line in told if words in line]


@pytest.mark.parametrize(("check", "name"), [("zero ablation", "zero"), ("resample ablation", "resample_random")])
def test_an_ablation_whose_loss_is_not_defined_is_no_pass(card, check, name):
    rows = [row.model_copy(update={"loss": UNDEFINED}) if row.ablation == name else row for row in card.ablations]
    changed = card.model_copy(update={"ablations": tuple(rows)})
    assert CHECKS[check](changed) is False
    told = warnings(changed)
    assert [line for line in told if "its loss is not defined" in line]


def test_an_interchange_accuracy_of_zero_is_a_warning(card):
    changed = _with(card, "interchange", accuracy=Estimate(value=0.0))
    told = warnings(changed)
    assert "Patched node by node, the model does what the circuit predicts in 0% of cases." in told


def test_a_corpus_without_places_is_an_error(true, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(sc.UserError, match="no place for each answer"):
        sc.faithfulness(*true, corpus=tmp_path)


def test_the_page_says_the_verdict_before_the_plots(card):
    text = to_html(card)
    assert text.index("Verdict:") < text.index("<svg") < text.index("<table")
    for words in ("circuit alone", "circuit removed", "whole model", "nulls"):
        assert f">{words}</text>" in text


def test_a_bar_that_is_longer_than_the_axis_says_so():
    plot = Plot("losses", "what runs", "nats", (0, 2), (0, 1))
    plot.bar(0, 1, 0.5, "dot", "short")
    plot.bar(1, 2, 23.0, "dot", "long")
    assert re.findall(r'class="clipped"[^>]*>([^<]*)<', plot.svg()) == ["▲ 23"]


def test_words_of_levels_do_not_lie_over_each_other():
    plot = Plot("losses", "what runs", "nats", (0, 1), (0, 1))
    for value in (0.70, 0.69, 0.68):
        plot.level(value, f"{value}")
    heights = sorted(float(y) for y in re.findall(r'class="note"[^>]* y="([\d.]+)"', plot.svg()))
    assert all(b - a >= 11 for a, b in itertools.pairwise(heights))
