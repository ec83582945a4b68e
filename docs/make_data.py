"""Write docs/data.md: how often the training data asks what each task asks.

python docs/make_data.py            write it (about two minutes)
"""

import platform
from pathlib import Path

import sparsecircuits as sc
from sparsecircuits.data.corpora import read_stdlib
from sparsecircuits.data.tinypython import generate_files
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.tasks.realcode import find_places

TARGET = Path(__file__).with_name("data.md")
FILES, STREAM, CONTEXT = 2000, 7, 128
HEAD = f"""# What the data teaches

Written by `python docs/make_data.py`. Places per million tokens at which code asks a task's question, for its first and
its second answer, as the finders of `sparsecircuits tasks --corpus` see them ({CONTEXT} tokens before a place).
tinypython: {FILES:,} generated files; stdlib: that of Python {{python}}. A finder looks for the same choice
as the task, not for its templates.

| task | answers | tinypython | stdlib |
|---|---|---|---|
"""


def document() -> str:
    """The page."""
    tokenizer = Tokenizer.default()
    tasks = [sc.get_task(task.name, tokenizer) for task in sc.list_tasks(beside=True)]
    corpora = [[file.text for file in generate_files(FILES, STREAM)], [file.text for file in read_stdlib().files]]
    columns = []
    for texts in corpora:
        millions = sum(map(len, tokenizer.encode_batch(texts))) / 1e6
        found = find_places(texts, tasks, tokenizer, CONTEXT)
        columns.append({name: [f"{n / millions:,.0f}" for n in places.counts] for name, places in found.items()})
    rows = []
    for task in tasks:
        answers = " · ".join(f"`{repr(text)[1:-1]}`" for text in task.answers)
        rows.append(f"| {task.name} | {answers} | " + " | ".join(" · ".join(c[task.name]) for c in columns) + " |")
    return HEAD.format(python=platform.python_version()) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8", newline="\n")
