"""The faithfulness card as the page shows it: one screen, and the rest to unfold."""

from typing import TYPE_CHECKING

from sparsecircuits.faithfulness.card.blocks import Block, Paragraph, Table, Tone
from sparsecircuits.viewer.sent import Sent

if TYPE_CHECKING:
    from sparsecircuits.faithfulness.card.schema import CardData


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
    tone: Tone
    why: str
    measured_on: str
    bars: list[CardBar]
    target_loss: float
    warnings: list[str]
    parts: list[CardPart]


def shown_card(card: "CardData") -> CardShown:
    """What the page shows of a card."""
    from sparsecircuits.faithfulness.card.body import body_of

    losses, body = card.losses, body_of(card)
    return CardShown(
        verdict=card.verdict,
        tone=body.tone,
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
        parts=[
            _part("All losses", body.losses),
            *(_part(section.title, section.blocks) for section in body.sections),
        ],
    )


def _draws(card: "CardData") -> str:
    return f"as many of the same sites, mean of {len(card.necessity_test.random)} draws"


def _part(title: str, blocks: tuple[Block, ...]) -> CardPart:
    """Blocks under a title, by kind: the page shows tables first, whatever their order was."""
    return CardPart(
        title=title,
        paragraphs=[block.text for block in blocks if isinstance(block, Paragraph)],
        tables=[CardTable(rows=_rows(block)) for block in blocks if isinstance(block, Table)],
    )


def _rows(table: Table) -> list[list[str]]:
    return [list(row) for row in (table.header, *table.rows)]
