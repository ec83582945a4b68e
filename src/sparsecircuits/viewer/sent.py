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
        return json.dumps(_finite(self.model_dump(mode="json")), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
