"""The circuit in sentences, where heads look, which answer a node is higher for, and signs that the picture goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_payload import quote_payload, random_payload
from test_page import select
from waiting import at_rest, eventually, true_on

import sparsecircuits as sc
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.tasks import Task
from sparsecircuits.viewer.payload import END_PAIRS, picture_payload

READING = "#panel .reading"


def looking(payload: dict[str, Any], token: int) -> dict[str, Any]:
    """The payload, each of whose heads looks from the last token at the one of that number."""
    for head in payload["attention"]:
        for pattern in head["patterns"]:
            pattern[-1] = [float(place == token) for place in range(len(pattern[-1]))]
    return payload


def sentence(page: Any, title: str) -> str:
    return " ".join(page.inner_text(f'{READING} [data-title="{title}"]').split())


@pytest.mark.browser
def test_the_circuit_is_said_from_the_tokens_up(show: Callable[..., Any]) -> None:
    payload = looking(quote_payload(), 1)
    payload["ends"] = {"n_pairs": 24, "split": "held-out", "higher": {n["name"]: 1.0 for n in payload["nodes"]}}
    page = show(payload)
    titles = page.eval_on_selector_all(f"{READING} .sentence", "all => all.map(e => e.dataset.title)")
    heads = sorted({(n["layer"], n["head"]) for n in payload["nodes"] if n["head"] is not None})
    assert titles[0] == "Tokens"
    assert titles[-1] == "Answers"
    assert [t for t in titles if "head" in t] == [f"Layer {layer}, head {head}" for layer, head in heads]
    texts = [prompt["tokens"][1] for prompt in payload["prompts"][:2]]
    assert all(text in sentence(page, "Tokens") for text in texts)  # the pair parts at its second token
    layer, head = heads[0]
    shares = {}
    for prompt in payload["prompts"]:
        shares[prompt["tokens"][1]] = shares.get(prompt["tokens"][1], 0) + 100 / len(payload["prompts"])
    said = sentence(page, f"Layer {layer}, head {head}")
    top = max(shares, key=lambda token: shares[token])
    assert f"{top.replace(' ', '·')} {shares[top]:.1f}%" in said
    values = [n for n in payload["nodes"] if (n["layer"], n["head"], n["site"]) == (layer, head, "attn.v")]
    assert all(f"v {n['index']}" in said for n in values[:3])
    for line in payload["logits"]:
        verb = "raised" if line["weight"] > 0 else "lowered"
        assert verb in sentence(page, "Answers")
        assert f"higher for {payload['answers'][1]['text']}" in sentence(page, "Answers")


@pytest.mark.browser
def test_a_sentence_lights_what_it_speaks_of_and_leads_there(show: Callable[..., Any]) -> None:
    payload = looking(quote_payload(), 1)
    page = show(payload)
    own = next(n for n in payload["nodes"] if n["site"] == "attn.v")
    row = page.locator(f'{READING} [data-title="Layer {own["layer"]}, head {own["head"]}"]')
    row.hover()
    true_on(page, f"document.querySelector('[data-name=\"{own['name']}\"]').classList.contains('lit')")
    page.mouse.move(5, 5)
    true_on(page, "!document.querySelector('#picture .vertex.lit')")
    row.locator(f'[data-to="{own["name"]}"]').first.click()
    page.wait_for_selector("#panel.pinned")
    assert own["name"] in page.inner_text("#panel .full-name")


@pytest.mark.browser
def test_a_head_says_what_it_looks_at(show: Callable[..., Any]) -> None:
    payload = quote_payload()
    page = show(looking(payload, 0))
    tokens = {prompt["tokens"][0] for prompt in payload["prompts"]}
    looks = page.eval_on_selector_all("#picture .looks", "all => all.map(e => e.textContent)")
    assert looks
    assert all(any(token in text for token in tokens) for text in looks)
    for head in payload["attention"]:
        for pattern in head["patterns"]:
            pattern[-1] = [0.05 for _ in pattern[-1]]  # the rest looks at nothing
    page = show(payload)
    assert page.locator("#picture .looks").count() == 0
    assert "no token in particular" in page.inner_text(READING)


@pytest.mark.browser
def test_a_node_without_a_rule_says_which_answer_it_is_higher_for(show: Callable[..., Any]) -> None:
    payload = quote_payload()
    names = [n["name"] for n in payload["nodes"]]
    higher = dict.fromkeys(names, 0.5) | {names[0]: 1.0, names[1]: 0.05, names[2]: 0.89}
    payload["ends"] = {"n_pairs": 20, "split": "held-out", "higher": higher}
    page = show(payload)
    first, second = (answer["text"] for answer in payload["answers"])
    captions = {name: page.locator(f'[data-name="{name}"] .caption') for name in names[:4]}
    assert captions[names[0]].text_content() == f"higher for {second}"
    assert captions[names[1]].text_content() == f"higher for {first}"
    assert [captions[name].count() for name in names[2:4]] == [0, 0]
    select(page, names[1])
    assert "in 95.0% of 20 held-out pairs" in page.inner_text("#higher-for")


def test_the_order_at_the_end_is_that_of_the_activations(run_dir: Path) -> None:
    model = sc.load_model(run_dir)
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    ends = picture_payload(model, circuit, task).ends
    assert ends.n_pairs == END_PAIRS
    assert set(ends.higher) == set(circuit.node_names)
    for name in circuit.node_names:
        assert ends.higher[name] == pytest.approx(order_of(model, circuit, task, name))
    assert max(abs(share - 0.5) for share in ends.higher.values()) == 0.5  # what decides is in order in each pair


def order_of(model: SparseTransformer, circuit: sc.Circuit, task: Task, name: str) -> float:
    batch = task.batch("held_out", END_PAIRS)
    site, _, index = name.rpartition(".")
    values = sc.run_with(model, circuit, batch, scope="circuit", watch=[site]).activations[site]
    at_end = values[torch.arange(len(batch.last)), torch.from_numpy(batch.last), int(index)]
    pairs = [(left, right) if batch.correct[2 * i] == 0 else (right, left) for i, (left, right) in
             enumerate(at_end.view(-1, 2).tolist())]  # fmt: skip
    return sum((second > first) + (second == first) / 2 for first, second in pairs) / len(pairs)


@pytest.mark.browser
def test_a_picture_that_goes_on_says_where_and_turns_there(show: Callable[..., Any]) -> None:
    def signs(page: Any) -> list[str]:
        return page.eval_on_selector_all(
            "#canvas .beyond", "all => all.filter(e => e.checkVisibility()).map(e => e.dataset.side)"
        )

    page = show(quote_payload(), 1920, 1080)
    at_rest(page)
    assert signs(page) == []
    page = show(random_payload(100, 2))
    at_rest(page)
    assert "below" in signs(page)
    assert "above" not in signs(page)
    before = page.locator(".vertex.answer").first.bounding_box()["y"]
    page.click('.beyond[data-side="below"]')
    eventually(lambda: before - page.locator(".vertex.answer").first.bounding_box()["y"] > 200, True)
    assert "above" in signs(page)


@pytest.mark.browser
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_a_task_is_said_whole_in_the_header(show: Callable[..., Any], size: tuple[int, int]) -> None:
    payload = quote_payload() | {"description": "give the last parameter a default if the one before it has one, else "
                                 "close the list"}  # fmt: skip
    page = show(payload, *size)
    assert page.evaluate("(e => e.scrollHeight <= e.clientHeight && e.scrollWidth <= e.clientWidth)"
                         "(document.getElementById('description'))")  # fmt: skip
