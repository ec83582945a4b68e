"""What nodes fire on, as the page has it."""

from collections.abc import Iterable

from sparsecircuits.circuits.descriptions import Description
from sparsecircuits.circuits.rules import Rule
from sparsecircuits.viewer.schema import NodeWords


def node_words(descriptions: Iterable[Description]) -> list[NodeWords]:
    """Descriptions for the page; those without a rule have words alone."""
    return [_words(each, each.rule or Rule()) for each in descriptions]


def _words(description: Description, rule: Rule) -> NodeWords:
    return NodeWords(
        name=description.name,
        words=description.words,
        above=description.above,
        tokens=list(rule.tokens),
        place=rule.place,
        answer=rule.answer,
        precision=description.precision,
        recall=description.recall,
    )
