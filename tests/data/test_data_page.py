"""docs/data.md, which a command writes: every column has a head."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_every_column_has_a_head() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert len(rows) > 20
    assert {row.count("|") for row in rows} == {rows[0].count("|")}
