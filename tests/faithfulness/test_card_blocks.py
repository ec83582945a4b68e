"""The card's blocks, as Markdown, as a page and as the viewer shows them: nothing is lost or changed on the way."""

import typing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sparsecircuits.circuits.descriptions import Description
from sparsecircuits.faithfulness.card.blocks import Block, Body, Paragraph, Table
from sparsecircuits.faithfulness.card.body import body_of
from sparsecircuits.faithfulness.card.markdown import to_markdown
from sparsecircuits.faithfulness.card.page import to_html
from sparsecircuits.faithfulness.card.schema import CardData, Verdict
from sparsecircuits.viewer.card import shown_card

SHIPPED = sorted((Path(__file__).parents[2] / "pretrained").glob("*/circuits/*/report.json"))
AWKWARD = (
    "**kwargs, ' **'",
    "a | b",
    "ends in \\",
    "\n\n## no heading",
    "- **no warning**",
    "**Verdict",
    "<b>&amp;",
    "",
)


@pytest.fixture(params=SHIPPED, ids=lambda path: "/".join(path.parts[-4:-1:2]))
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def awkward() -> CardData:
    """A card whose text looks like Markdown and HTML."""
    rows = [Description.model_construct(name=text, words=text, top_tokens=(text,)) for text in AWKWARD]
    changed = {"descriptions": tuple(rows), "reasons": AWKWARD, "warnings": list(AWKWARD), "model_name": AWKWARD[0]}
    return CardData.load(SHIPPED[0]).model_copy(update=changed)


class _Page(HTMLParser):
    """The text of every element of some kinds, in order, and tables as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {kind: [] for kind in ("h1", "h2", "p", "li", "th", "td")}
        self.tables: list[list[list[str]]] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in self.texts:
            self._into = self.tables[-1][-1] if tag in ("th", "td") else self.texts[tag]
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.texts:
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def _blocks(body: Body) -> list[Block]:
    return [*body.losses, *(block for section in body.sections for block in section.blocks)]


def _rows(blocks: list[Block]) -> list[list[list[str]]]:
    return [[list(row) for row in (x.header, *x.rows)] for x in blocks if isinstance(x, Table)]


def _texts(blocks: list[Block]) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Paragraph)]


def _same_everywhere(card: CardData) -> None:
    body = body_of(card)
    blocks, page, shown = _blocks(body), _Page(to_html(card)), shown_card(card)
    said = f"Verdict: {card.verdict}. " + " ".join(card.reasons)
    assert page.texts["h1"] == [body.title]
    assert page.texts["h2"] == [section.title for section in body.sections]
    assert page.texts["p"] == [body.size.text, said, *_texts(blocks)]
    assert page.texts["li"] == shown.warnings == card.warnings
    assert [part.title for part in shown.parts] == ["All losses", *page.texts["h2"]]
    assert [text for part in shown.parts for text in part.paragraphs] == _texts(blocks)
    assert page.tables == [table.rows for part in shown.parts for table in part.tables] == _rows(blocks)


def test_markdown_of_the_shipped_cards_is_the_page_beside_them(path: Path) -> None:
    assert to_markdown(CardData.load(path)) + "\n" == path.with_suffix(".md").read_text(encoding="utf-8")


def test_page_and_viewer_have_all_of_the_shipped_cards(path: Path) -> None:
    _same_everywhere(CardData.load(path))


def test_text_that_looks_like_markdown_stays_what_it_is(awkward: CardData) -> None:
    _same_everywhere(awkward)
    assert r"| a \| b | a \| b | 'a \| b' |" in to_markdown(awkward)


@pytest.mark.parametrize("verdict", typing.get_args(Verdict))
def test_a_verdict_has_one_colour_everywhere(verdict: Verdict) -> None:
    card = CardData.load(SHIPPED[0]).model_copy(update={"verdict": verdict})
    tone = shown_card(card).tone
    assert f'<p class="verdict {tone}"><strong>Verdict: {verdict}.' in to_html(card)
    assert (tone == "open") == (verdict == "null controls not run")


def test_there_are_shipped_cards() -> None:
    assert len(SHIPPED) > 10
