"""Mixes by weight and streamed datasets: shares, coverage, exact resume."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forked
import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, hub, open_sampler, prepare_tokens
from sparsecircuits.data.hub import HubSource
from sparsecircuits.data.mix import MixSampler
from sparsecircuits.data.spec import Part, parse_spec
from sparsecircuits.data.streams import StreamSampler, read_head, text_rank
from sparsecircuits.data.tinypython import generate_files
from sparsecircuits.errors import UserError
from sparsecircuits.training.checkpoints import checkpoint_steps
from sparsecircuits.training.loop import saved_config

TOKENIZER = Tokenizer.default()
TEXTS = [file.text for file in generate_files(90, seed=8)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset on disk: two JSONL files of 45 documents."""
    folder = tmp_path_factory.mktemp("hub") / "code"
    folder.mkdir()
    for place in range(2):
        rows = [json.dumps({"path": f"{i}.py", "content": text}) for i, text in enumerate(TEXTS[place::2])]
        (folder / f"part-{place}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def head(dataset):
    return read_head(f"hf:{dataset}", TOKENIZER)


def sampler(head, **more):
    return StreamSampler(head.about, TOKENIZER, **{"n_ctx": 32, "batch_size": 4, "block_tokens": 9000, **more})


def test_specs():
    assert parse_spec("stdlib+tinypython") == [Part("stdlib"), Part("tinypython")]
    assert parse_spec("0.6*stdlib + 0.4*tinypython:9") == [Part("stdlib", 0.6), Part("tinypython:9", 0.4)]
    assert parse_spec("3*stdlib+1*hf:a/b:c@d") == [Part("stdlib", 0.75), Part("hf:a/b:c@d", 0.25)]
    assert parse_spec("drills:9+drills") == [Part("drills:9"), Part("drills")]
    assert [part.generated for part in parse_spec("stdlib+drills+tinypython:4")] == [False, True, True]
    assert parse_spec("hf:a/b") == [Part("hf:a/b", 1.0)]
    assert HubSource.parse("hf:a/b:py@v1#code") == HubSource("a/b", "py", "v1", "code")
    assert HubSource.parse("hf:a/b@v1") == HubSource("a/b", None, "v1")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("0.5*stdlib+tinypython", "every source a weight"),
        ("0*stdlib+1*tinypython", "above 0"),
        ("x*stdlib+1*tinypython", "above 0"),
        ("nan*stdlib", "above 0"),
        ("-1*stdlib+2*tinypython", "above 0"),
        ("0.5*stdlib+0.5*stdlib", "twice"),
        ("0.5*nowhere", "unknown corpus"),
        ("stdlib+hf:a/b", "no end"),
        ("hf:", "names no dataset"),
    ],
)
def test_faulty_specs_are_told(spec, words):
    with pytest.raises(UserError, match=words):
        parse_spec(spec)


class Numbered:
    """A sampler whose windows are its own number."""

    def __init__(self, number):
        self.number, self.count = number, 0

    def take(self, count):
        self.count += count
        return np.full((count, 2), self.number), np.full((count, 2), -self.number)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_shares_are_kept_at_every_moment(raw, batches):
    weights = [weight / sum(raw) for weight in raw]
    mix, rows = MixSampler(weights, [Numbered(i) for i in range(len(raw))], 4), []
    for count in batches:
        inputs, targets = mix.take(count)
        assert (targets == -inputs).all()
        rows += inputs[:, 0].tolist()
    for done in range(1, len(rows) + 1):
        counts = np.bincount(rows[:done], minlength=len(raw))
        assert np.abs(counts - done * np.array(weights)).max() < len(raw)


def test_a_weighted_corpus_has_its_shares(corpus, tmp_path):
    spec = f"0.8*{corpus}+0.2*tinypython"
    data = prepare_tokens(spec, TOKENIZER, cache_dir=tmp_path)
    rows = data.manifest["mix"]
    assert [row["source"] for row in rows] == [str(corpus), "tinypython"]
    counts = data.manifest["splits"]["val"]["by_source"]
    assert counts["tinypython"] / sum(counts.values()) == pytest.approx(0.2, abs=0.01)
    # The sources lie as the manifest says: each begins a document, and together they are everything.
    assert [data.train[row["start"]] for row in rows] == [TOKENIZER.eot_id] * 2
    assert (rows[0]["start"], rows[1]["stop"]) == (0, len(data.train))
    sample = data.sample()
    assert len(sample) <= len(data.train)
    mixed = open_sampler(data, TOKENIZER, 16, 10)
    for _ in range(20):
        mixed.next()
    assert mixed.drawn.tolist() == [160, 40]


def test_plain_mixes_mean_what_they_meant(corpus, tmp_path):
    data = prepare_tokens(f"{corpus}+tinypython:5", TOKENIZER, cache_dir=tmp_path)
    assert "mix" not in data.manifest
    assert data.sample() is data.train


def test_the_head_splits_by_text(head):
    assert sorted(head.train + head.val) == sorted(TEXTS)
    assert 1 <= len(head.val) < 20
    assert all((text_rank(text) < head.about["holdout"]) == (text in head.val) for text in TEXTS)


def test_an_epoch_is_every_window_once_and_nothing_held_out(head):
    stream, documents = sampler(head, batch_size=1), {}
    seen = []
    while stream.epoch == 0:
        documents[stream.block] = stream._block.tokens
        inputs, targets = stream.next()
        assert (inputs[0, 1:] == targets[0, :-1]).all()
        seen.append(inputs.tobytes())
    assert len(documents) > 2
    text = TOKENIZER.decode(np.concatenate(list(documents.values())).tolist())
    assert sorted(text.split("<|endoftext|>")[1:]) == sorted(head.train)
    windows = sum((len(tokens) - 1 - 32) // 32 for tokens in documents.values())
    assert windows <= len(seen) <= windows + 2 * len(documents)


def test_seeds_and_epochs_differ(head):
    first, other = sampler(head), sampler(head, seed=1)
    start = first.next()[0]
    assert not np.array_equal(start, other.next()[0])
    while first.epoch == 0:
        first.next()
    assert not np.array_equal(start, first.next()[0])


@pytest.mark.parametrize("before", [0, 1, 30, 77, 300, 700])
def test_a_stream_resumes_exactly(head, before):
    """Positions within blocks, at their borders and in later epochs; the state goes through JSON."""
    whole = sampler(head)
    for _ in range(before):
        whole.next()
    state = json.loads(json.dumps(whole.state_dict()))
    resumed = sampler(head)
    resumed.next()
    resumed.load_state_dict(state)
    for _ in range(120):
        for mine, theirs in zip(whole.next(), resumed.next(), strict=True):
            assert np.array_equal(mine, theirs)


class Forgetful:
    """A dataset that counts from the last resume, as datasets 5.0 does: the second resume goes astray."""

    def __init__(self, rows):
        self.rows, self.start, self.read = rows, 0, 0

    def select_columns(self, names):
        return Forgetful(self.rows)

    def load_state_dict(self, state):
        self.start = state["read"]

    def state_dict(self):
        return {"read": self.read}

    def __iter__(self):
        for text in self.rows[self.start :]:
            self.read += 1
            yield {"content": text}


@pytest.mark.parametrize("forgetful", [False, True])
def test_three_resumes_in_a_row_are_one_run(head, forgetful, monkeypatch):
    if forgetful:
        monkeypatch.setattr(hub, "open_dataset", lambda *_: (Forgetful(TEXTS), "content"))
    settings = {"block_tokens": 2000}
    whole, parts = sampler(head, **settings), sampler(head, **settings)
    for _ in range(4):
        for _ in range(70):
            for mine, theirs in zip(whole.next(), parts.next(), strict=True):
                assert np.array_equal(mine, theirs)
        state = json.loads(json.dumps(parts.state_dict()))
        parts = sampler(head, **settings)
        parts.load_state_dict(state)
    assert whole.epoch == 0
    assert whole.block >= 3


def test_a_dataset_that_changed_is_refused(head, monkeypatch):
    stream = sampler(head)
    for _ in range(200):
        stream.next()
    assert stream.block > 0
    state = stream.state_dict()
    monkeypatch.setattr(hub, "open_dataset", lambda *_: (Forgetful([*TEXTS[1:], "x = 1"]), "content"))
    changed = sampler(head)
    state["start"]["library"] = {"read": state["start"]["rows"]}
    with pytest.raises(UserError, match="no longer holds the documents"):
        changed.load_state_dict(state)
    with pytest.raises(UserError, match="earlier version"):
        changed.load_state_dict({key: value for key, value in state.items() if key != "digest"})


def test_a_state_of_another_stream_is_refused(head):
    state = sampler(head).state_dict()
    for more in ({"seed": 3}, {"n_ctx": 16}, {"block_tokens": 5000}):
        with pytest.raises(UserError, match="cannot resume"):
            sampler(head, **more).load_state_dict(state)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "csv"])
def test_single_files_and_columns(tmp_path, ending):
    from datasets import Dataset

    rows = Dataset.from_dict({"code": TEXTS[:8], "license": ["mit"] * 8})
    path = tmp_path / f"data.{ending}"
    {"parquet": rows.to_parquet, "csv": rows.to_csv}.get(ending, rows.to_json)(path)
    head = read_head(f"hf:{path}", TOKENIZER)
    assert sorted(head.train + head.val) == sorted(TEXTS[:8])
    stream, settings = sampler(head, block_tokens=500), {"block_tokens": 500}
    for _ in range(20):
        stream.next()
    resumed = sampler(head, **settings)
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert np.array_equal(stream.next()[0], resumed.next()[0])
    with pytest.raises(UserError, match="no column 'body'; it has code, license"):
        read_head(f"hf:{path}#body", TOKENIZER)
    assert len(read_head(f"hf:{path}#code", TOKENIZER).train) == len(head.train)


def test_a_text_file_is_a_document_a_line(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"x_{i} = {i}" for i in range(50)) + "\n")
    head = read_head(f"hf:{path}", TOKENIZER)
    assert len(head.train + head.val) == 50
    path.write_text("")
    with pytest.raises(UserError):
        read_head(f"hf:{path}", TOKENIZER)


def test_a_column_that_is_not_sure_is_asked_for(tmp_path):
    ambiguous = tmp_path / "ambiguous.jsonl"
    ambiguous.write_text('{"a": "x", "b": "y"}\n')
    with pytest.raises(UserError, match=r"which column .* #COLUMN \(a, b\)|which column .*#COLUMN"):
        read_head(f"hf:{ambiguous}", TOKENIZER)


def test_too_little_is_told(tmp_path):
    path = tmp_path / "small.jsonl"
    path.write_text('{"text": "x = 1"}\n{"text": "y = 2"}\n{"text": null}\n')
    head = read_head(f"hf:{path}", TOKENIZER)
    with pytest.raises(UserError, match="too few tokens for a context of 32"):
        sampler(head).next()
    path.write_text('{"text": "x = 1"}\n')
    with pytest.raises(UserError, match="holds 1 documents"):
        read_head(f"hf:{path}", TOKENIZER)


def train_command(out, spec):
    options = (
        "--steps 60 --checkpoint-every 5 --batch-size 4 --model.d-model 32 --model.d-head 8 --model.n-layer 1 --json "
        "--model.n-ctx 32 --sparsity.density 0.25 --eval-tokens 2048 --dtype float32 --shuffle-tokens 4000"
    )
    return ["train", "--out", str(out), "--data", spec, *options.split()]


def test_a_killed_run_on_a_mix_with_a_stream_ends_bit_equal(dataset, tmp_path):
    killed = tmp_path / "killed"
    command = train_command(killed, f"0.7*hf:{dataset}+0.3*tinypython:20")
    process = forked.start(*command)
    while process.poll() is None and max(checkpoint_steps(killed), default=0) < 25:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model.safetensors").exists(), "it finished before it could be killed"
    # The rest in this process: importing datasets again is what takes long.
    whole = sc.train(saved_config(killed), tmp_path / "whole")
    resumed = sc.train(saved_config(killed), killed, resume=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_hub_out_of_reach_is_one_clear_line(tmp_path):
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "sparsecircuits", *train_command(tmp_path / "run", "hf:some/dataset")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot reach the dataset 'some/dataset'" in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
