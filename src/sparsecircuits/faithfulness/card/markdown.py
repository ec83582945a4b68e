"""The card as a Markdown page."""

from collections.abc import Iterable, Iterator

from sparsecircuits.faithfulness.card.blocks import Block, Body, Paragraph, Table
from sparsecircuits.faithfulness.card.body import body_of
from sparsecircuits.faithfulness.card.schema import CardData


def to_markdown(card: CardData) -> str:
    """Everything on the card but the values per prompt, per node and per draw of large circuits."""
    return "\n\n".join(_parts(body_of(card)))


def _parts(body: Body) -> Iterator[str]:
    yield f"# {body.title}"
    yield body.size.text
    yield f"**Verdict: {body.verdict}.** " + " ".join(body.reasons)
    if body.warnings:
        yield "\n".join(f"- **{text}**" for text in body.warnings)
    yield from map(_block, body.losses)
    for section in body.sections:
        yield f"## {section.title}"
        yield from map(_block, section.blocks)


def _block(block: Block) -> str:
    return block.text if isinstance(block, Paragraph) else _table(block)


def _table(table: Table) -> str:
    return "\n".join(map(_row, (table.header, ["---"] * len(table.header), *table.rows)))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
