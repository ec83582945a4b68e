"""Colours that people with any colour vision can tell apart (Okabe and Ito 2008), in light and dark."""

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DARK = ("#4aa8e0", "#ee7a2b", "#2bbf97", "#dd93bd", "#f0b429", "#8accf2", "#f2f2f2")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
"""SVG dash patterns: a new one for each round through the colours."""


def look(place: int) -> tuple[str, str, str]:
    """(light colour, dark colour, dash pattern) of the run at a place."""
    return LIGHT[place % len(LIGHT)], DARK[place % len(DARK)], DASHES[place // len(LIGHT) % len(DASHES)]
