"""What the models of `schema` have in common: how they become JSON, and what may be left out of it."""

import json
import math
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import SkipJsonSchema

Absent = SkipJsonSchema[None]
"""In Python, the value of what the JSON lacks: there is no key. Any other None is null."""


def _readable(text: str) -> str:
    """Names of files may hold bytes that are no text."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


FileText = Annotated[str, BeforeValidator(_readable)]
"""Text that may name a file."""
LARGEST_WHOLE = 2.0**53  # beyond, digits would be made up
_ALIASES = {"schema_": "schema"}


class Sent(BaseModel):
    """JSON for the page. What was not set is left out of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _what_was_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unset = type(self).model_fields.keys() - self.model_fields_set
        return {_ALIASES.get(name, name): value for name, value in dump(self).items() if name not in unset}

    def extended(self, **more: object) -> Self:
        """The same with more fields set, or others; they are checked."""
        held = {_ALIASES.get(name, name): getattr(self, name) for name in self.model_fields_set}
        return self.model_validate({**held, **more})

    def to_json(self) -> str:
        """As JSON of ASCII alone; null for every number that is not finite."""
        return json.dumps(_short(self.model_dump(mode="json")), allow_nan=False, separators=(",", ":"))


def _short(value: Any) -> Any:
    """With null for what is no number, and whole numbers without a point: most activations are 0."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < LARGEST_WHOLE else value
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value
