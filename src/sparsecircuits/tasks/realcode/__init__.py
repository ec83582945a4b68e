"""Where code that people wrote asks the questions of the tasks, and which answer is right there.

Finders read Python's own tokens and syntax tree, so that no string or comment passes for code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sparsecircuits.tasks.base import Task
from sparsecircuits.tasks.realcode import lexical, statements
from sparsecircuits.tasks.realcode.source import Place, Source

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

__all__ = ["FINDERS", "Finder", "Place", "Places", "Source", "find_places", "question_of"]

Contexts = list[list[int]]


@dataclass(frozen=True)
class Finder:
    """How a task's places are found in a file.

    what: the places in words. answers: which tokens of the model's tokenizer count as either answer: files say more
    than one (`:` and `:\\n`), and a place whose token is neither is left out.
    """

    what: str
    find: Callable[[Source], Iterable[Place]]
    answers: tuple[Callable[[str], bool], Callable[[str], bool]]


def _begins(*starts: str) -> Callable[[str], bool]:
    return lambda token: token.startswith(starts)


def _is(answer: str) -> Callable[[str], bool]:
    return lambda token: token == answer


def _but(not_this: str, start: str = "") -> Callable[[str], bool]:
    return lambda token: token.startswith(start) and not token.startswith(not_this)


def _word(token: str) -> bool:
    return token[:1] == " " and token[1:2].isalpha()


FINDERS: Mapping[str, Finder] = {
    "single_double_quote": Finder(
        "one-line strings that a call opened", lexical.closing_quotes, (_begins("')"), _begins('")'))
    ),
    "final_kwarg": Finder(
        "last parameters, behind others with defaults or without", statements.parameters, (_begins("="), _begins("):"))
    ),
    "set_or_string": Finder(
        "variables that were `set()` or an empty string", statements.accumulators, (_is(".add"), _is(" +="))
    ),
    "set_or_string_fixedvarname": Finder(
        "`current`, that was `set()` or an empty string", statements.current_accumulators, (_is(".add"), _is(" +="))
    ),
    "class_init": Finder("`self.x = x` and `self.y = y` in `__init__`", statements.attributes, (_is(" x"), _is(" y"))),
    "with_as": Finder(
        "`with … as`, and assignments, that end with a name", statements.managers, (_is(" as"), _begins("\n"))
    ),
    "bracket_brace": Finder(
        "first keys of dicts, and first items of lists", lexical.first_items, (_begins(":"), _begins(","))
    ),
    "with_open": Finder("modes of `open`", statements.modes, (_begins("r"), _begins("w"))),
    "bracket_counting": Finder(
        "square brackets that close all levels, one or two, at the end of a line",
        lexical.closing_brackets,
        (_begins("]\n"), _begins("]]\n")),
    ),
    "for_while": Finder("`for x in` and `while x:`", statements.loop_headers, (_is(" in"), _begins(":"))),
    "else_elif": Finder("`else` and `elif`", lexical.branches, (_begins(":"), _but(":"))),
    "fstring_brace": Finder(
        "strings in calls: ` {` in f-strings, words in plain ones", lexical.braces_in_strings, (_begins(" {"), _word)
    ),
    "if_ternary": Finder(
        "conditions of `if` statements and of ternaries", statements.conditions, (_begins(":"), _is(" else"))
    ),
    "var_swap": Finder("`x, b = b, x` and `y, b = b, y`", statements.swaps, (_is(" x"), _is(" y"))),
    "indent_for": Finder(
        "lines behind `for` headers and ordinary ones, 4 columns in",
        statements.loops_and_lines,
        (_is(" " * 7), _is(" " * 3)),
    ),
    "lambda_func": Finder("lambdas of one parameter, and functions", statements.lambdas, (_begins(":"), _begins("("))),
    "if_equals": Finder("`if x ==` and `x =`", statements.comparisons, (_begins(" =="), _but(" ==", " ="))),
    "enumerate_range": Finder(
        "`for i, x in enumerate` and `for i in range`", statements.loop_groups, (_is(" enumerate"), _is(" range"))
    ),
    "var_if": Finder("values of `if x ==` and of `x =`", statements.line_ends, (_begins(":\n"), _begins("\n"))),
    "while_return_true": Finder(
        "lines behind `while True:` and `return True`, 8 columns in",
        statements.loops_and_returns,
        (_is(" " * 11), _is(" " * 3)),
    ),
    "while_true_colon": Finder("`while True` and `return True`", statements.true_ends, (_begins(":\n"), _begins("\n"))),
}
"""By the name of the task."""

ANYWHERE = "code that goes on with one of the answers"


@dataclass
class Places:
    """The places of one task in some files. spots: (file, token) of the right answer, for either answer."""

    what: str
    ids: tuple[list[int], list[int]]
    """The tokens that count as either answer."""
    files: Sequence[Sequence[int]]
    spots: tuple[list[tuple[int, int]], list[tuple[int, int]]] = field(default_factory=lambda: ([], []))

    @property
    def counts(self) -> tuple[int, int]:
        """How many there are of each answer."""
        return len(self.spots[0]), len(self.spots[1])

    def contexts(self, n_ctx: int, most: tuple[int, int]) -> tuple[Contexts, Contexts]:
        """Up to `most` prompts of each answer, drawn evenly: the tokens of the file before it, up to a context."""
        a, b = (
            [list(self.files[file][max(0, at - n_ctx) : at]) for file, at in _evenly(spots, n)]
            for spots, n in zip(self.spots, most, strict=True)
        )
        return a, b


def question_of(task: Task, names: Sequence[str]) -> tuple[str, tuple[list[int], list[int]]]:
    """What counts as a place of a task, in words, and the tokens that count as its answers: by the finder of a shipped
    task, else wherever code goes on with one of the answers. names: the texts of the vocabulary's tokens."""
    finder = FINDERS.get(task.name)
    if finder is None:
        return ANYWHERE, tuple([i] for i in task.answer_ids)  # type: ignore[return-value]
    a, b = ([i for i, name in enumerate(names) if counts(name)] for counts in finder.answers)
    return finder.what, (a, b)


def find_places(texts: Sequence[str], tasks: Sequence[Task], tokenizer: "Tokenizer", n_ctx: int) -> dict[str, Places]:
    """The places of each task (bound to the tokenizer) in files of Python, by its name.

    A place counts where the answer begins a token, is one of the answer's tokens, and what decides it stands within
    a context before it. Files that do not parse have none. Deterministic; the time is linear in the texts.
    """
    files, names = tokenizer.encode_batch(texts), [tokenizer.token(i) for i in range(tokenizer.vocab_size)]
    found = {task.name: Places(*question_of(task, names), files) for task in tasks}
    kinds = {name: [set(ids) for ids in places.ids] for name, places in found.items()}
    for file, (text, ids) in enumerate(zip(texts, files, strict=True)):
        source = Source.read(text)
        if source is None:
            continue
        starts = tokenizer.starts(ids)
        if starts[-1] != len(source.raw):
            continue  # a tokenizer that does not keep the text
        for name, places in found.items():
            for at, side in _in_file(FINDERS.get(name), source, ids, starts, kinds[name], n_ctx):
                places.spots[side].append((file, at))
    return found


def _in_file(
    finder: Finder | None, source: Source, ids: list[int], starts: np.ndarray, kinds: list[set[int]], n_ctx: int
) -> Iterator[tuple[int, int]]:
    """(token, right answer) of the places in a file, in order."""
    if finder is None:
        yield from ((at, int(token in kinds[1])) for at, token in enumerate(ids) if at and token in kinds[0] | kinds[1])
        return
    places = sorted(set(finder.find(source)))
    at = np.searchsorted(starts, [place.at for place in places])
    cues = np.searchsorted(starts, [place.cue for place in places], side="right") - 1
    for place, token, cue in zip(places, at.tolist(), cues.tolist(), strict=True):
        stands_alone = 0 < token < len(ids) and starts[token] == place.at
        if stands_alone and token - cue <= n_ctx and ids[token] in kinds[place.side]:
            yield token, place.side


def _evenly(items: list, most: int) -> list:
    return items if len(items) <= most else [items[i * len(items) // most] for i in range(most)]
