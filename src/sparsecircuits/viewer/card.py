"""The faithfulness card as the page shows it: one screen, and the rest to unfold."""

import re
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from sparsecircuits.viewer.sent import Sent

if TYPE_CHECKING:
    from sparsecircuits.faithfulness.card.schema import CardData

TONES: dict[str, Literal["good", "bad"]] = {
    "distinguishable from null": "good",
    "not distinguishable from null": "bad",
    "no circuit needed": "bad",
}


class CardBar(Sent):
    """A loss in nats and what it is of."""

    name: str
    loss: float
    note: str


class CardTable(Sent):
    """Rows of one length; the first is the head."""

    rows: list[list[str]]


class CardPart(Sent):
    """Some of the card under a title: paragraphs, then tables."""

    title: str
    paragraphs: list[str]
    tables: list[CardTable]


class CardShown(Sent):
    """A faithfulness card (`faithfulness.card.schema.CardData`, which takes torch)."""

    verdict: str
    tone: Literal["good", "bad", "open"]
    why: str
    measured_on: str
    bars: list[CardBar]
    target_loss: float
    warnings: list[str]
    parts: list[CardPart]


def shown_card(card: "CardData") -> CardShown:
    """What the page shows of a card."""
    from sparsecircuits.faithfulness.card.markdown import to_markdown

    losses = card.losses
    first, *parts = re.split(r"\n## ", to_markdown(card))
    everything = first.split("\n\n", 2)[2]  # after the title and the line of sizes
    return CardShown(
        verdict=card.verdict,
        tone=TONES.get(card.verdict, "open"),
        why=card.reasons[0] if card.reasons else "",
        measured_on=f"{2 * losses.n_pairs} {losses.split.replace('_', '-')} prompts",
        bars=[
            CardBar(name="circuit alone", loss=losses.circuit, note="everything outside ablated"),
            CardBar(
                name="circuit removed",
                loss=losses.ablated if losses.ablated_calibrated is None else losses.ablated_calibrated,
                note="only the circuit ablated",
            ),
            CardBar(name="random nodes removed", loss=card.random_ablated, note=_draws(card)),
        ],
        target_loss=card.target_loss,
        warnings=list(card.warnings),
        parts=[_part("All losses", everything), *(_part(*each.split("\n", 1)) for each in parts)],
    )


def _draws(card: "CardData") -> str:
    return f"as many of the same sites, mean of {len(card.necessity_test.random)} draws"


def _part(title: str, text: str) -> CardPart:
    """A part of the Markdown that `to_markdown` writes. What stands elsewhere on the screen is left out."""
    blocks = [block for block in text.strip().split("\n\n") if not block.startswith(("- **", "**Verdict"))]
    kinds = {table: list(found) for table, found in groupby(sorted(blocks, key=_is_table), key=_is_table)}
    return CardPart(
        title=title,
        paragraphs=[block.replace("**", "") for block in kinds.get(False, [])],
        tables=[CardTable(rows=_rows(block)) for block in kinds.get(True, [])],
    )


def _is_table(block: str) -> bool:
    return block.startswith("| ")


def _rows(block: str) -> list[list[str]]:
    head, _rule, *rows = block.split("\n")
    return [
        [cell.replace(r"\|", "|").replace("**", "").strip() for cell in re.split(r"(?<!\\) \| ", line[2:-2])]
        for line in (head, *rows)
    ]
