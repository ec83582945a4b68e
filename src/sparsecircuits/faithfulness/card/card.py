"""The card of a circuit: its data (`schema`), and the files that are written of it."""

import json
from pathlib import Path

from sparsecircuits.faithfulness.card.markdown import to_markdown
from sparsecircuits.faithfulness.card.page import to_html
from sparsecircuits.faithfulness.card.schema import CardData
from sparsecircuits.files import write_text


class Report(CardData):
    """The card, as `faithfulness` returns it."""

    def save(self, path: str | Path) -> Path:
        """Write the JSON, and beside it a Markdown page and an HTML page. Returns the JSON's path."""
        path = Path(path)
        write_text(path.with_suffix(".md"), self.to_markdown() + "\n")
        write_text(path.with_suffix(".html"), to_html(self))
        return write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    def to_markdown(self) -> str:
        """The card as a Markdown page."""
        return to_markdown(self)
