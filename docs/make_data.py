"""Write docs/data.md: how often the training data asks what each task asks.

python docs/make_data.py            write it (about four minutes)
"""

import platform
from pathlib import Path

import sparsecircuits as sc
from sparsecircuits.data.corpora import read_stdlib
from sparsecircuits.data.tinypython import KINDS, generate_files
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.tasks.realcode import find_places

TARGET = Path(__file__).with_name("data.md")
FILES, STREAM, CONTEXT = 2000, 7, 128
HEAD = f"""# What the data teaches

Written by `python docs/make_data.py`. Places per million tokens at which code asks a task's question, for its first and
its second answer, as the finders of `sparsecircuits tasks --corpus` see them ({CONTEXT} tokens before a place).
tinypython, drills, bindings and forms: {FILES:,} generated files each; stdlib: that of Python {{python}}. A finder
looks for the same choice as the task, not for its templates. drills are files of short snippets that ask often what
ordinary code asks seldom, bindings such that do little but start and fill names of several kinds, forms such that open
brackets, strings, parameter lists and files, with comments cut from the same: corpora to mix in
(`--data "0.25*stdlib+0.33*tinypython:14000+0.42*drills:18000"`), not in the default one.

"""


def document() -> str:
    """The page."""
    tokenizer = Tokenizer.default()
    tasks = [sc.get_task(task.name, tokenizer) for task in sc.list_tasks(beside=True)]
    corpora = {kind: [file.text for file in generate_files(FILES, STREAM, kind)] for kind in KINDS}
    corpora["stdlib"] = [file.text for file in read_stdlib().files]
    columns = []
    for texts in corpora.values():
        millions = sum(map(len, tokenizer.encode_batch(texts))) / 1e6
        found = find_places(texts, tasks, tokenizer, CONTEXT)
        columns.append({name: [f"{n / millions:,.0f}" for n in places.counts] for name, places in found.items()})
    header = ["task", "answers", *corpora]
    rows = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for task in tasks:
        answers = " · ".join(f"`{repr(text)[1:-1]}`" for text in task.answers)
        rows.append(f"| {task.name} | {answers} | " + " | ".join(" · ".join(c[task.name]) for c in columns) + " |")
    return HEAD.format(python=platform.python_version()) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8", newline="\n")
