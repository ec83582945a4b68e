"""Write docs/api.md: what `import sparsecircuits` offers, for mkdocstrings to fill in from the sources.

python docs/make_api.py            write it
python docs/make_api.py --check    fail if it is out of date
"""

import sys
from pathlib import Path

import sparsecircuits

TARGET = Path(__file__).with_name("api.md")
HEAD = """# Python

Written by `make docs`. All of these are names of `sparsecircuits` that are imported on first use: after
`import sparsecircuits as sc` it is `sc.load_model("pretrained:nano")`. Shapes are jaxtyping's:
`Float[Tensor, "n 2"]` is a float tensor of n rows and 2 columns.
"""


def document() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n::: {module}.{name}\n" for name, module in sparsecircuits._EXPORTS.items())


if __name__ == "__main__":
    text = document()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8", newline="\n")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit("docs/api.md is out of date: run `make docs`")
