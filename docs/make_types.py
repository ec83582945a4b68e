"""Write the page's types (src/sparsecircuits/viewer/web/src/types.ts) from the models of what server and page send.

python docs/make_types.py            write them
python docs/make_types.py --check    fail if they are out of date
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from sparsecircuits.viewer import schema
from sparsecircuits.viewer.requests import RunRequest, SteerRequest

TARGET = Path(__file__).parents[1] / "src/sparsecircuits/viewer/web/src/types.ts"
MODELS = (
    schema.CircuitList, schema.Payload, schema.NodeDetails, schema.Curve, schema.Words, schema.RunResult,
    schema.RunLoss, schema.Continued, schema.SteeringCurves, schema.SteeringControls, schema.Saved,
    schema.Refusal, RunRequest, SteerRequest,
)  # fmt: skip
"""All that is sent; the models of their parts follow from them."""
WHOLE = ("Groups", "Group")
"""A file may lack what has a default; what is sent of these has all."""
NAMES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def type_of(part: dict[str, Any], models: dict[str, Any]) -> str:
    """The TypeScript type of a part of a JSON schema. Raises ValueError for what it cannot say."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return name if "properties" in models[name] else "unknown"  # JSON of any kind
    if "const" in part or "enum" in part:
        return " | ".join(json.dumps(value) for value in part.get("enum", [part.get("const")]))
    if "anyOf" in part:
        return " | ".join(type_of(each, models) for each in part["anyOf"])
    if "prefixItems" in part:
        return f"[{', '.join(type_of(each, models) for each in part['prefixItems'])}]"
    if part.get("type") == "array":
        item = type_of(part["items"], models)
        return f"({item})[]" if " | " in item else f"{item}[]"
    if part.get("type") == "object":
        return f"Record<string, {type_of(part['additionalProperties'], models)}>"
    if part.get("type") in NAMES:
        return NAMES[part["type"]]
    raise ValueError(f"no TypeScript type for {part}")


def interface(name: str, models: dict[str, Any]) -> str:
    """A model as an interface; what may be left out has a question mark."""
    model = models[name]
    lines = [f"/** {model['description'].splitlines()[0]} */", f"export interface {name} {{"]
    for field, part in model["properties"].items():
        sure = field in model.get("required", ()) or name in WHOLE
        lines.append(f"  {field}{'' if sure else '?'}: {type_of(part, models)};")
    return "\n".join([*lines, "}"])


def document() -> str:
    """The whole file."""
    models = models_json_schema([(model, "validation") for model in MODELS])[1]["$defs"]
    written = [interface(name, models) for name, model in models.items() if "properties" in model]
    head = (
        "// What the server and the page send each other. Written by `make docs` from viewer/schema.py and requests.py."
    )
    return "\n\n".join([head, *written]) + "\n"


if __name__ == "__main__":
    text = document()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8", newline="\n")
    elif TARGET.read_text(encoding="utf-8") != text:
        sys.exit("the page's types are out of date: run `make docs`, then `make page`")
