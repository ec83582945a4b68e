"""Write the table of planted faults into docs/faithfulness.md.

python docs/make_faults.py
"""

import re
from pathlib import Path

from sparsecircuits.planted.faults import FAULTS, card_of, table

PAGE = Path(__file__).with_name("faithfulness.md")


def main() -> None:
    written = table({fault.words: card_of(fault) for fault in FAULTS})
    between = r"(?s)(<!-- faults -->\n).*(<!-- end of faults -->)"
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(between, lambda m: f"{m[1]}\n{written}\n\n{m[2]}", text), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
