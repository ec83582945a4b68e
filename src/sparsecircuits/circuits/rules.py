"""Where a node fires, as data. Free of torch: the viewer shows it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Place = Literal["difference", "onwards", "last"]
PLACES: dict[Place, str] = {
    "difference": "the token where the prompts of a pair differ",
    "onwards": "every token from where the prompts of a pair differ",
    "last": "the last token",
}


class Rule(BaseModel):
    """Where a node fires: on some tokens, or at a place of the prompt, of either answer's prompts or of all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: tuple[str, ...] = ()
    place: Place | None = None
    answer: str | None = None
    """Only in prompts where this answer is right."""

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        if self.place is None:
            return f"the token{'s' * (len(self.tokens) > 1)} {', '.join(map(repr, self.tokens))}"
        return PLACES[self.place] + ("" if self.answer is None else f", if {self.answer!r} is right")
