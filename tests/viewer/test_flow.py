"""What flows through the circuit on the prompt on show: its tokens in order, activation × weight on the lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_page import VALUE, node
from waiting import eventually

import sparsecircuits as sc
from sparsecircuits.interop.circuit_files import circuit_files

pytestmark = pytest.mark.browser
READ = "0.attn.act_in.0"


def drawn_tokens(page: Any) -> list[str]:
    """Texts of the drawn tokens, from left to right."""
    found = page.eval_on_selector_all(
        "#picture .vertex.token",
        "all => all.map(e => [e.getBoundingClientRect().x, e.querySelector('.name').textContent])",
    )
    return [text for _, text in sorted(found)]


def prompt_tokens(page: Any, row: int) -> list[str]:
    texts: list[str] = page.locator(".prompt").nth(row).locator(".token").all_inner_texts()
    return texts


def test_tokens_in_order_and_activation_times_weight(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit()
    page.click('[data-flow="2"]')
    page.wait_for_selector('.vertex.token[data-id="token:@0"]')
    eventually(lambda: drawn_tokens(page), prompt_tokens(page, 1))
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    weight = next(edge.weight for edge in circuit.edges if (edge.source, edge.target) == (READ, VALUE))
    page.click(node(READ))
    page.wait_for_selector("#panel .side-row.right .token")
    values = page.locator(".side-row.right .token").evaluate_all("all => all.map(e => +e.dataset.value)")
    along = [value * weight for value in values]
    page.keyboard.press("Escape")
    page.wait_for_selector("#panel.pinned", state="detached")
    page.locator(f'#picture .link[data-name="{READ} → {VALUE}"] .hit').dispatch_event("pointermove")
    page.wait_for_selector("#tip:not([hidden])")
    tip = page.locator("#tip").inner_text()
    assert f"{max(along, key=abs):+.3f}".replace("-", "−") in tip
    assert len(tip.splitlines()) > 2  # token by token
    before = prompt_tokens(page, 1)
    page.keyboard.press("n")
    page.wait_for_selector("#pair >> text=pair 2")
    after = prompt_tokens(page, 1)
    assert after != before
    eventually(lambda: drawn_tokens(page), after)
    assert "flow=2" in page.url
    page.click('[data-flow="0"]')
    page.wait_for_selector('.vertex.token[data-id="token:@0"]', state="detached")


def test_the_flow_of_a_typed_prompt(visit: Callable[..., Any]) -> None:
    page = visit("#flow=2")
    page.wait_for_selector('.vertex.token[data-id="token:@0"]')
    page.keyboard.press("t")
    page.fill("textarea[name=prompt]", 'print("hello world')
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".own-prompt >> text=hello")
    eventually(lambda: drawn_tokens(page), prompt_tokens(page, 0))
