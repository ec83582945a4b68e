"""The algorithm that docs/viewer.md reads off the picture of pretrained:versed's quote circuit, against the weights."""

import numpy as np
import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.interop.pretrained import folder_of
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.recording import head_pattern
from sparsecircuits.tasks import PairBatch, Task
from sparsecircuits.viewer.payload import picture_payload
from sparsecircuits.viewer.schema import Payload

SINGLE, DOUBLE = (" '", "('"), (' "', '("')
HEAD = 8
WRITE, FINAL = "0.attn.resid_delta.70", "final_resid.70"


@pytest.fixture(scope="module")
def model() -> SparseTransformer:
    return sc.load_model("pretrained:versed")


@pytest.fixture(scope="module")
def circuit() -> sc.Circuit:
    return sc.Circuit.load(folder_of("pretrained:versed") / "circuits" / "single_double_quote" / "circuit.json")


@pytest.fixture(scope="module")
def task(model: SparseTransformer, circuit: sc.Circuit) -> Task:
    return sc.get_task(circuit.task, model.tokenizer)


@pytest.fixture(scope="module")
def picture(model: SparseTransformer, circuit: sc.Circuit, task: Task) -> Payload:
    return picture_payload(model, circuit, task)


@pytest.fixture(scope="module")
def batch(task: Task) -> PairBatch:
    return task.batch("held_out", 32)


def written(picture: Payload, token: str, value: str) -> float:
    """What a token puts into a value channel, along the lines of the picture."""
    reads = {edge.source: edge.weight for edge in picture.edges if edge.target == value}
    return sum(e.weight * reads[e.target] for e in picture.embedding if e.token == token and e.target in reads)


def with_quote(model: SparseTransformer, batch: PairBatch) -> torch.Tensor:
    """Which tokens hold a quote: bool [n, T]."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    ids = [i for i in range(tokenizer.vocab_size) if set("\"'") & set(tokenizer.token(i))]
    return torch.from_numpy(np.isin(batch.tokens, ids) & batch.real)


def test_it_is_one_head_without_queries_and_one_channel(circuit: sc.Circuit, picture: Payload) -> None:
    heads = {(node.site, node.head) for node in circuit.nodes if node.site in ("attn.q", "attn.k", "attn.v")}
    assert heads == {("attn.k", HEAD), ("attn.v", HEAD)}
    assert {node.name for node in circuit.nodes if node.site == "attn.resid_delta"} == {WRITE}
    assert [(link.source, link.target) for link in picture.residual or []] == [(WRITE, FINAL)]
    assert [(line.source, picture.answers[line.answer].text) for line in picture.logits or []] == [(FINAL, "')")]
    assert all(line.weight < 0 for line in picture.logits or [])


def test_one_value_is_for_double_quotes_and_one_for_single_ones(picture: Payload) -> None:
    for token in DOUBLE:
        assert written(picture, token, "0.attn.v.136") > 0
        assert written(picture, token, "0.attn.v.136") > 2 * written(picture, token, "0.attn.v.135")
    for token in SINGLE:
        assert written(picture, token, "0.attn.v.135") > 0
        assert written(picture, token, "0.attn.v.136") == 0
    weights = {edge.source: edge.weight for edge in picture.edges if edge.target == WRITE}
    assert weights["0.attn.v.136"] > 0 > weights["0.attn.v.135"]  # up for double quotes, down for single ones


def test_reads_are_for_one_kind_of_quote_or_for_both(picture: Payload) -> None:
    def tokens(*reads: str) -> list[set[str]]:
        quotes = {*SINGLE, *DOUBLE}
        lines = picture.embedding or []
        return [{e.token for e in lines if e.target == f"0.attn.act_in.{read}"} & quotes for read in reads]

    assert tokens("219", "238") == [{*DOUBLE}, {*DOUBLE}]
    assert tokens("129") == [{*SINGLE}]
    assert tokens("27") == [{*SINGLE, ' "'}]  # the weight of which is less than half of theirs
    assert tokens("46", "1") == [{*SINGLE, *DOUBLE}] * 2
    into = {e.token: e.weight for e in picture.embedding or [] if e.target == "0.attn.act_in.22"}
    assert into[" from"] > max(into["('"], into['("']) > 0


def test_keys_single_out_opening_quotes(picture: Payload) -> None:
    """The queries are frozen: what keys say alone decides where the head looks."""
    keys = {edge.source for edge in picture.edges if edge.target.startswith("0.attn.k")}
    into = {"0.attn.act_in.1", "0.attn.act_in.46"}
    assert into <= keys
    assert all(edge.weight < 0 for edge in picture.edges if edge.source in into)
    for read in into:
        weights = {e.token: e.weight for e in picture.embedding or [] if e.target == read}
        assert all(weights[token] > 0 for token in (*SINGLE, *DOUBLE))


def test_the_head_looks_at_quotes(model: SparseTransformer, circuit: sc.Circuit, batch: PairBatch) -> None:
    outcome = sc.run_with(model, circuit, batch, scope="circuit", watch=["0.attn.q", "0.attn.k"])
    last = torch.from_numpy(batch.last)
    looked = head_pattern(model, outcome.activations, 0, HEAD)[torch.arange(len(last)), last]
    quotes = with_quote(model, batch)
    assert (quotes.sum(dim=1) / (last + 1)).mean() < 0.15
    assert (looked * quotes).sum(dim=1).mean() > 0.65
    assert quotes[torch.arange(len(last)), looked.argmax(dim=1)].float().mean() > 0.9


def test_channel_70_tells_the_quotes_apart_and_decides(
    model: SparseTransformer, circuit: sc.Circuit, batch: PairBatch
) -> None:
    outcome = sc.run_with(model, circuit, batch, scope="circuit", watch=["final_resid"])
    value = outcome.activations["final_resid"][torch.arange(len(batch.last)), torch.from_numpy(batch.last), 70]
    double = torch.from_numpy(batch.correct == circuit.answers.index('")'))
    assert value[double].min() > value[~double].median()
    assert value[double].median() > 2 * value[~double].median()
    swapped = [sc.Intervention(kind="patch", target=name) for name in ("0.attn.v.135", "0.attn.v.136")]
    before = sc.run_with(model, circuit, batch, scope="model").logits[:, list(batch.answers)]
    after = sc.run_with(model, circuit, batch, swapped, scope="model").logits[:, list(batch.answers)]
    correct = torch.from_numpy(batch.correct)
    assert (before.argmax(dim=1) == correct).float().mean() > 0.95
    assert (after.argmax(dim=1) == correct).float().mean() < 0.2  # the two values are what the whole model answers by
