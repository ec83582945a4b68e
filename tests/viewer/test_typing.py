"""What a person types, drags or has the focus on stays while answers of the server render the panels anew."""

from collections.abc import Callable
from typing import Any

import pytest
from test_page import NEURON, WRITE, node, select

pytestmark = pytest.mark.browser
NAME = '[aria-label="Name of this node"]'


class Held:
    """Requests of one kind that are not answered before `let_go`."""

    def __init__(self, page: Any, pattern: str) -> None:
        self.waiting: list[Any] | None = []
        page.route(pattern, self.meet)

    def meet(self, route: Any) -> None:
        if self.waiting is None:
            route.continue_()
        else:
            self.waiting.append(route)

    def let_go(self) -> None:
        waiting, self.waiting = self.waiting or [], None
        assert waiting  # else the test shows nothing
        for route in waiting:
            route.continue_()


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.name")


def named_before_its_details(page: Any) -> Held:
    """Select a node and name it while the server keeps back its details."""
    details = Held(page, "**/nodes/*")
    select(page, NEURON)
    page.fill(NAME, "detector")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector")
    return details


def test_a_name_being_typed_outlives_the_details(visit: Callable[..., Any]) -> None:
    page = visit()
    details = Held(page, "**/nodes/*")
    select(page, NEURON)
    page.click(NAME)
    page.keyboard.type("detectr")
    page.keyboard.press("ArrowLeft")
    details.let_go()
    page.wait_for_selector("#panel .weights")
    assert page.input_value(NAME) == "detectr"
    assert focused(page) == "Name of this node"
    page.keyboard.type("o")  # where the caret was
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector")
    assert page.input_value(NAME) == "detector"


def test_what_is_selected_of_a_name_outlives_the_details(visit: Callable[..., Any]) -> None:
    page = visit()
    details = named_before_its_details(page)
    page.locator(NAME).select_text()
    details.let_go()
    page.wait_for_selector("#panel .weights")
    page.keyboard.press("Delete")
    assert page.input_value(NAME) == ""
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector", state="detached")


def test_a_deleted_name_outlives_the_details(visit: Callable[..., Any]) -> None:
    page = visit()
    details = named_before_its_details(page)
    page.fill(NAME, "")
    details.let_go()
    page.wait_for_selector("#panel .weights")
    assert (page.input_value(NAME), focused(page)) == ("", "Name of this node")
    assert page.locator(f"{node(NEURON)} >> text=detector").count() == 1  # it is not done with yet
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector", state="detached")


def test_a_slider_being_dragged_outlives_an_answer(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, WRITE)
    page.wait_for_selector("#panel .weights")
    runs = Held(page, "**/run")
    page.keyboard.press("2")
    page.wait_for_selector('[data-kind="zero"][aria-pressed="true"]')
    slider = page.locator("#panel .factor")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    dragged = page.inner_text("#panel .factor-value")
    assert dragged not in ("×1", "×0")
    runs.let_go()
    page.wait_for_selector("#loss-line")
    assert page.inner_text("#panel .factor-value") == dragged
    page.mouse.up()
    page.wait_for_selector(f"#strip .change >> text={dragged}")


def test_the_names_of_groups_outlive_answers(visit: Callable[..., Any]) -> None:
    page = visit()
    details = Held(page, "**/nodes/*")
    select(page, NEURON)
    page.keyboard.press("/")
    page.fill("#find", WRITE)
    page.fill("input[name=own]", "mine")
    page.fill("input[name=group]", "writers")
    details.let_go()
    page.wait_for_selector("#panel .weights")
    assert (page.input_value("input[name=group]"), page.input_value("input[name=own]")) == ("writers", "mine")
    assert focused(page) == "Name of the group"
    page.keyboard.press("n")  # a letter, not a shortcut
    page.locator("#importance").focus()
    page.evaluate("document.querySelector('#theme').click()")  # renders everything
    assert page.input_value("input[name=group]") == "writersn"
    assert page.evaluate("document.activeElement.id") == "importance"
    page.locator("input[name=group]").press("Enter")
    page.wait_for_selector('.vertex.group[data-id="group:writersn"]')
    assert page.input_value("input[name=group]") == ""


def test_a_prompt_being_typed_outlives_an_answer(visit: Callable[..., Any]) -> None:
    page = visit()
    runs = Held(page, "**/run")
    page.keyboard.press("t")
    page.fill("textarea[name=prompt]", "y = ('left")
    page.fill("textarea[name=patch]", 'y = ("left')
    page.locator(".own button[type=submit]").focus()  # no field has the focus now
    runs.let_go()
    page.wait_for_selector("#prompts .own-prompt")
    assert page.input_value("textarea[name=prompt]") == "y = ('left"
    assert page.input_value("textarea[name=patch]") == 'y = ("left'
    assert page.evaluate("document.activeElement.type") == "submit"
    page.keyboard.press("Enter")
    page.wait_for_selector("#prompts .own-prompt .tokens >> text=left")


def test_what_is_open_or_scrolled_stays(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    page.wait_for_selector("#panel .weights")
    page.locator("#panel .weights summary").first.click()
    page.evaluate("document.querySelector('#panel').scrollTop = 60")
    page.keyboard.press("2")
    page.wait_for_selector("#loss-line")
    assert page.evaluate("document.querySelector('#panel .weights').open")
    assert page.evaluate("document.querySelector('#panel').scrollTop") == 60
    select(page, WRITE)
    page.wait_for_selector("#panel .weights")
    assert not page.evaluate("document.querySelector('#panel .weights').open")
