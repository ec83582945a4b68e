"""Claims measured on the hand-made model, whose circuit is known: files, going on, the page and the command."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from madecircuits import circuit_of
from sparsecircuits.claims import behaviour, catalogue, sizes, training, validity
from sparsecircuits.claims.claim import Claim, Setting, Subject
from sparsecircuits.claims.page import page, table
from sparsecircuits.claims.reproducing import is_of, measured, read_results, reproduce, result_path
from sparsecircuits.claims.schema import Result, Verdict
from sparsecircuits.cli import main
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.models.storage import save_means, save_native
from sparsecircuits.nodes.ablation_values import pretraining_means
from sparsecircuits.planted.models import QUOTE_EDGES, QUOTE_NODES, quote_model
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.runs import circuit_path, circuits_folder


@pytest.fixture(scope="module")
def subject(tmp_path_factory, corpus) -> Subject:
    """The hand-made model as a run with its means and its circuit."""
    folder = tmp_path_factory.mktemp("made") / "made"
    model = quote_model(Tokenizer.default())
    save_native(model, folder, {"train": {"data": str(corpus)}})
    text = np.array(model.tokenizer.encode("\n".join(p.read_text() for p in sorted(corpus.glob("*.py"))[:20])))
    means = pretraining_means(model, text)
    save_means(model, means, folder)
    circuit_of(model, QUOTE_NODES, means).save(circuit_path(circuits_folder(folder), "single_double_quote"))
    return Subject(str(folder))


@pytest.fixture
def setting(subject) -> Setting:
    return Setting((subject,), scale=0.15)


def test_without_the_circuit_the_model_fails_and_without_others_it_does_not(setting):
    [row] = validity.inverse_pruning(setting)
    assert row["nodes"] == len(QUOTE_NODES)
    assert row["whole model"] < 0.05 < 0.65 < row["without it"]
    assert row["without random nodes"] == pytest.approx(row["whole model"], abs=0.01)
    assert validity.judge_inverse_pruning([row]).word == "reproduced"


def test_a_circuit_that_is_one_step_survives_two_values_and_scrubbing(setting):
    [row] = validity.binarisation(setting)
    assert row["accuracy with those"] == 1
    assert (row["nodes that need a third"], row["loss after"]) == (0, row["loss with those"])
    [row] = validity.scrubbing(setting)
    assert row["kept"] > 0.9


def test_a_head_that_has_no_key_has_no_constant_query(setting):
    assert behaviour.constant_query(setting) == []


def test_what_does_not_know_brackets_is_not_asked_about_them(setting):
    rows = behaviour.bracket_dilution(setting)
    assert [row["items"] for row in rows][:3] == [2, 4, 8]
    assert behaviour.judge_bracket_dilution(rows).word == "cannot be said at this scale"
    rows = behaviour.bracket_comment(setting)
    assert [row["comment"] for row in rows] == list(behaviour.COMMENTS)


def test_rankings_and_coarse_units_of_the_known_circuit(setting, monkeypatch):
    monkeypatch.setattr(sizes, "RANKED_TASKS", ("single_double_quote.plain",))
    quick = {"steps": 60, "pairs": 8, "eval_pairs": 16, "lr": 1e-2}
    monkeypatch.setattr(sizes, "pruning", lambda _setting, method="learned": PruneConfig(method=method, **quick))
    [row] = sizes.learned_attribution(setting)
    assert row["eap-ig, nodes"] == row["gradient, nodes"] == len(QUOTE_NODES)
    assert row["learned, nodes"] >= len(QUOTE_NODES)  # so few steps leave some of the junk above
    [row] = sizes.coarse_units(setting)
    assert (row["units"], row["of units"]) == (2, 5)  # one of four heads, and the MLP
    assert row["edges in units"] > len(QUOTE_EDGES)
    assert row["our edges"] == len(QUOTE_EDGES)


def test_neurons_without_weights_in_are_dead(setting):
    [row] = training.dead_neurons(setting)
    assert (row["neurons"], row["dead"]) == (32, (32 - 11) / 32)


def test_a_circuit_without_a_curve_says_no_size(setting):
    assert [row["edges"] for row in sizes.size_curves(setting)] == [None] * len(sizes.TARGETS)


def test_the_kurtosis_of_a_stream_that_a_few_channels_carry(setting):
    [row] = training.kurtosis_shipped(setting)
    assert 0 < row["log mean kurtosis"] < 2.8  # at most that of one channel of 16


def tiny(setting, seed, changes=None, *, dense=False):
    config = dataclasses.replace(ORIGINAL(setting, seed, changes, dense=dense), data=str(tiny.corpus), batch_size=2)
    model = dataclasses.replace(config.model, d_model=32, n_layer=1, n_ctx=32, d_head=8)
    sparsity = config.sparsity if dense else dataclasses.replace(config.sparsity, density=0.2, floor=2)
    return dataclasses.replace(config, model=model, sparsity=sparsity, eval_tokens=512)


ORIGINAL = training.config_of


def test_claims_that_train_keep_their_models(monkeypatch, corpus, subject):
    tiny.corpus = corpus
    monkeypatch.setattr(training, "config_of", tiny)
    setting = Setting(seeds=1, scale=0.003)
    rows = training.sparse_after(setting)
    assert [row["variant"] for row in rows] == ["trained sparse", "cut afterwards", "dense"]
    assert rows[0]["nonzeros"] == rows[1]["nonzeros"] < rows[2]["nonzeros"]
    monkeypatch.setattr("sparsecircuits.claims.trained.train", None)  # what is trained is not trained again
    assert training.sparse_after(setting) == rows
    assert training.judge_sparse_after(rows).word == "cannot be said at this scale"


COUNT = []


def counted(setting: Setting) -> list:
    COUNT.append(setting)
    return [{"a": 1, "b": 0.25}, {"a": 2, "c": "x|y", "b": None}]


CLAIM = Claim(
    "made", "Fig. 0", "One is one.", "always", counted, lambda rows: Verdict(word="partly", reason="why"), ("x",)
)


def test_what_is_there_is_not_measured_again(tmp_path, subject):
    COUNT.clear()
    setting = Setting((subject,))

    def run(claim=CLAIM, setting=setting, **how):
        return next(iter(reproduce([claim], tmp_path, setting, **how)))

    first = run()
    assert first == run()
    assert Result.load(result_path(tmp_path, "made")) == first
    assert len(COUNT) == 1
    run(again=True)
    run(dataclasses.replace(CLAIM, version=2))
    run(setting=dataclasses.replace(setting, scale=0.5))
    assert len(COUNT) == 4
    assert not is_of(first, CLAIM, Setting((subject, subject)))
    assert first.models[0].content_hash == subject.content_hash
    assert first.seconds >= 0
    assert first.machine


def test_a_damaged_result_is_refused_in_a_line(tmp_path):
    path = result_path(tmp_path, "kurtosis")
    path.write_text('{"claim": "kurtosis", "schema_version": 2}')
    with pytest.raises(UserError, match=r"kurtosis.json is no result of a claim"):
        read_results(tmp_path)


def test_the_page_shows_figures_verdicts_and_what_was_not_run(subject):
    result = measured(CLAIM, Setting((subject,)), "abc")
    other = dataclasses.replace(CLAIM, name="other", models=())
    text = page({"made": CLAIM, "other": other}, {"made": result})
    assert "| [made](#made) | Fig. 0 | why | **partly** |" in text
    assert "| [other](#other) | Fig. 0 | - | not run |" in text
    assert "**Not run.** `sparsecircuits reproduce other`" in text
    assert subject.content_hash[:8] in text
    assert "commit abc." in text
    assert table(result.rows) == ["| a | b | c |", "|---:|---:|---|", "| 1 | 0.250 | - |", "| 2 | - | x\\|y |"]
    assert table([]) == ["(nothing could be measured)"]


def test_the_command(tmp_path, capsys, monkeypatch, subject):
    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as ended:
            main(["reproduce", *map(str, arguments)])
        assert ended.value.code == code
        return capsys.readouterr()

    listed = json.loads(run("--list", "--json").out)["claims"]
    assert [claim["name"] for claim in listed] == list(catalogue.CLAIMS)
    assert all(claim["rule"] and claim["says"] for claim in listed)
    assert len(json.loads(run("--list", "--untrained", "--json").out)["claims"]) < len(listed)
    assert "no claim 'kurtosi'" in run("kurtosi", code=1).err
    assert "--scale must be positive" in run("two_hops", "--scale", 0, "--out", tmp_path, code=1).err

    out = tmp_path / "claims"
    how = ("quote_circuit", "--model", subject.name, "--out", out)
    [found] = json.loads(run(*how, "--json").out)["claims"]
    assert found["verdict"] == "cannot be said at this scale"  # this model's circuit is of the task without distractors
    assert "quote_circuit" in run("--draw", "--out", out).out
    assert "| [quote_circuit]" in (out / "README.md").read_text()


def test_what_was_measured_is_what_the_page_says():
    folder = Path(__file__).parents[2] / "docs" / "claims"
    results = read_results(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == page(catalogue.CLAIMS, results)
    assert all(result.claim == name and result.rows for name, result in results.items())
