"""The generator: every file parses, files repeat by seed, and the tasks' idioms are frequent and balanced."""

import ast
import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecircuits.data.tinypython import KINDS, file_use, generate_bytes, generate_file, generate_files, words
from sparsecircuits.data.tinypython.idioms import idiom
from sparsecircuits.data.tinypython.statements import SIMPLE
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.tasks import get_task, list_tasks
from sparsecircuits.tasks.base import SPLITS
from sparsecircuits.tasks.realcode import find_places

TEXT = "".join(file.text for file in generate_files(600, seed=3))
TEXTS = {
    "tinypython": TEXT,
    **{kind: "".join(file.text for file in generate_files(600, 3, kind)) for kind in ("drills", "bindings", "forms")},
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


@kinds
@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**40))
def test_files_compile_and_are_files(kind: str, seed: int) -> None:
    text = generate_file(seed, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(text, "generated", "exec")
    lines = text.splitlines()
    assert 15 <= len(lines) <= 250
    assert text.endswith("\n")
    assert not any(line != line.rstrip() for line in lines)


@kinds
def test_deterministic_and_streams_differ(kind: str) -> None:
    assert generate_files(5, 1, kind) == generate_files(5, 1, kind)
    assert generate_files(9, 1, kind)[:5] == generate_files(5, 1, kind)
    assert not {file.text for file in generate_files(20, 1, kind)} & {file.text for file in generate_files(20, 2, kind)}
    assert len({file.text for file in generate_files(300, 0, kind)}) == 300
    assert generate_bytes(3000, 1, kind)[0] == generate_files(1, 1, kind)[0]


def test_drills_ask_often_what_other_files_ask_seldom() -> None:
    tokenizer = Tokenizer.default()
    tasks = [get_task(name, tokenizer) for name in ("set_or_string_fixedvarname", "var_swap", "with_open", "with_as")]
    rates = {}
    for kind in KINDS:
        texts = [file.text for file in generate_files(120, 3, kind)]
        found = find_places(texts, tasks, tokenizer, 128)
        tokens = sum(map(len, tokenizer.encode_batch(texts)))
        rates[kind] = {name: [count / tokens for count in places.counts] for name, places in found.items()}
    for task in tasks:
        first, second = (
            often / seldom
            for often, seldom in zip(*(rates[k][task.name] for k in ("drills", "tinypython")), strict=True)
        )
        assert first > 2, task.name
        assert second > 2 or task.name == "with_as", task.name  # lines end everywhere


def test_generate_bytes_reaches_the_size() -> None:
    files = generate_bytes(20_000, 0)
    assert 20_000 <= sum(len(file.text) for file in files) < 32_000
    assert len(generate_bytes(0, 0)) == 2


@pytest.mark.parametrize(
    ("left", "right"),
    [("('", '("'), ("')", '")'), ("')\n", '")\n'), (" in enumerate(", " in range(")],
)
def test_pairs_are_balanced(left: str, right: str) -> None:
    first, second = TEXT.count(left), TEXT.count(right)
    assert 0.6 < first / second < 1.7
    assert first > 100


def test_quotes_close_with_and_without_a_newline() -> None:
    tokenizer = Tokenizer.default()
    ids = [i for text in tokenizer.encode_batch(TEXT.splitlines(keepends=True)) for i in text]
    for text in ("')", '")', "')\n", '")\n', "('", '("'):
        assert ids.count(tokenizer.single_token(text)) > 300, text


def test_forms_ask_evenly_and_with_their_cues_in_comments() -> None:
    """Brackets, braces, f-strings, defaults and modes: both answers often, those of bracket_counting evenly."""
    tokenizer = Tokenizer.default()
    names = ("bracket_counting", "bracket_brace", "fstring_brace", "final_kwarg", "with_open")
    texts = [file.text for file in generate_files(200, 3, "forms")]
    found = find_places(texts, [get_task(name, tokenizer) for name in names], tokenizer, 128)
    for name, places in found.items():
        assert min(places.counts) > 100, name
    assert 0.5 < found["bracket_counting"].counts[0] / found["bracket_counting"].counts[1] < 2
    comments = re.findall(r"(?m)^ *# (.*)$", TEXTS["forms"])
    opened = [text for text in comments if text.count("[") > text.count("]")]
    assert len(opened) > 0.02 * len(comments) > 20


def test_forms_close_a_list_behind_a_plain_name_whichever_name_it_is() -> None:
    """And behind a default comes another: what final_kwarg asks, with many names that are no words."""
    heads = [head.split(", ") for head in re.findall(r"def \w+\(([^()\n]*)\):", TEXTS["forms"])]
    pairs = [(head[-2], head[-1]) for head in heads if len(head) > 1 and head[-2] not in ("self", "cls")]
    plain, given = ([last for before, last in pairs if ("=" in before) == wanted] for wanted in (False, True))
    assert min(len(plain), len(given)) > 200
    assert sum("=" in last for last in plain) < 0.2 * len(plain)
    assert sum("=" in last for last in given) > 0.98 * len(given)
    known = {part for pool in (words.NOUNS, words.PLURALS, words.ADJECTIVES, words.LETTERS) for part in pool}
    names = [name.split("=")[0] for head in heads for name in head if name not in ("self", "cls")]
    assert 0.15 < sum(name not in known for name in names) / len(names) < 0.6


def test_forms_show_values_in_fstrings_behind_words_and_not_in_plain_strings() -> None:
    shown = re.findall(r"""\Wf(['"])((?:(?!\1).)*)\1""", TEXTS["forms"])
    plain = re.findall(r"""[(,] ?(['"])((?:(?!\1).)*)\1\)""", TEXTS["forms"])
    assert sum(" {" in text for _, text in shown) > 0.6 * len(shown) > 200
    assert sum(" {" in text for _, text in plain) < 0.1 * len(plain)


def test_a_good_share_of_files_mixes_quotes() -> None:
    files = [file.text for file in generate_files(200, seed=4)]
    mixed = sum("('" in text and '("' in text for text in files)
    assert 60 < mixed < 170


@pytest.mark.parametrize(
    ("idiom", "least"),
    [
        ("=None", 400), ("):\n", 2000), ("= set()", 200), ('= ""', 60), ("= ''", 60), (".add(", 150),
        ("current.add(", 20), ("current += ", 20), ("with open(", 300), (") as ", 300), (" = open(", 20),
        ("with lock as", 5), (": 3, ", 8), (", 'w')", 40), (', "w")', 40), (", 'r')", 25), (', "r")', 25),
        ("]]\n", 400), ("]\n", 1200), ("]] + ", 20), ("while ", 500), ("else:\n", 500), ("elif ", 400),
        ('(f"', 60), ("(f'", 60), (" else ", 300), (" = lambda ", 60), ("key=lambda ", 60), ("if x == ", 20),
        ("x = ", 200), (" == True:\n", 60), (" = True\n", 100), ("while True:\n", 200),
        ("return True\n", 150), ("finally:\n", 30), ("raise ", 80), ("['", 80), ('["', 80), (" = (", 40), (", 'a')", 4),
        ("[::-1]", 3), ("@property", 8), ("yield ", 20), ("continue\n", 15), ("isinstance(", 20),
        ("assert ", 60), ("import ", 300), (" += ", 400), ("__init__", 200),
    ],
)  # fmt: skip
def test_idioms_are_frequent(idiom: str, least: int) -> None:
    assert TEXT.count(idiom) >= least


def test_flat_and_nested_lists_are_balanced() -> None:
    nested = len(re.findall(r"= \[\[.*\]\]\n", TEXT))
    flat = len(re.findall(r"= \[[^\[\]\n]+\]\n", TEXT)) - len(re.findall(r"= \[[^\[\n]* for .*\]\n", TEXT))
    assert 0.6 < nested / flat < 1.7
    assert nested > 300


def test_swaps_and_returns_before_shallower_lines() -> None:
    assert len(re.findall(r"\b(\w+), (\w+) = \2, \1\n", TEXT)) > 150
    assert len(re.findall(r"return True\n +\S", TEXT)) > 150
    assert len(re.findall(r"while True:\n +\S", TEXT)) > 150


def test_class_attributes_copy_their_parameter() -> None:
    copies = 0
    for node in ast.walk(ast.parse(TEXT)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            copies += isinstance(node.value, ast.Name) and node.targets[0].attr == node.value.id
    assert copies > 900


def test_comments_and_long_strings_open_what_nothing_closes() -> None:
    """So that a count of quotes or brackets over the file does not say what is open."""
    comments = re.findall(r"(?m)^ *# (.*)$", TEXT)
    assert len(comments) > 2000
    for opener, closer, least in (("(", ")", 100), ("[", "]", 100), ("{", "}", 15)):
        assert sum(text.count(opener) > text.count(closer) for text in comments) > least, opener
    assert sum(text.count("'") % 2 or text.count('"') % 2 for text in comments) > 100
    strings = [node.value for node in ast.walk(ast.parse(TEXT)) if isinstance(node, ast.Constant)]
    assert sum(isinstance(text, str) and "\n" in text and "(" in text for text in strings) > 300


def test_strings_stand_in_later_arguments_and_keywords_too() -> None:
    for quote in "'\"":
        assert len(re.findall(rf", {quote}[^\n]*{quote}\)", TEXT)) > 100
        assert len(re.findall(rf"[(, ]\w+={quote}[^\n]*{quote}\)", TEXT)) > 40


def test_smaller_idioms_are_a_modest_share() -> None:
    weights = dict(SIMPLE)
    assert 0.05 < weights[idiom] / sum(weights.values()) < 0.2
    kinds = {type(node) for node in ast.walk(ast.parse(TEXT))}
    wanted = (ast.Tuple, ast.Slice, ast.Raise, ast.Assert, ast.Yield, ast.Starred, ast.GeneratorExp, ast.Delete)
    assert set(wanted) <= kinds


def test_strings_in_a_tuple_share_their_quotes() -> None:
    """`('a', "b")` would open with one quote and close with the other, which calls never do here."""
    for line in re.findall(r"^ *\w+ = (\(.*\))$", TEXT, re.M):
        assert not (line.startswith("('") and line.endswith('")')), line
        assert not (line.startswith('("') and line.endswith("')")), line


@kinds
def test_no_prompt_of_a_task_is_in_the_corpus(kind: str) -> None:
    for task in list_tasks(beside=True):
        for split in SPLITS:
            prompts = [prompt for pair in task.pairs(split, 100) for prompt in pair.prompts if len(prompt) > 40]
            assert prompts
            assert not [prompt for prompt in prompts if prompt in TEXTS[kind]]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "forms"])
def test_how_a_name_is_used_follows_from_what_it_was_bound_to(kind: str) -> None:
    """Lines later, and past others like it."""
    starts = {"set()": "set", "''": "str", '""': "str", "[]": "list"}
    uses, wrong, far, past_others = 0, 0, 0, 0
    for file in generate_files(400, 5, kind):
        bound: dict[str, tuple[str, int]] = {}
        for i, line in enumerate(file.text.splitlines()):
            if line.startswith(("def ", "class ")):
                bound = {}
            if found := re.fullmatch(r" *([\w.]+) = (set\(\)|''|\"\"|\[\])", line):
                bound[found[1]] = (starts[found[2]], i)
            elif found := re.match(r" *(?:for )?([\w., ]+?)(?: =| in) ", line):
                for name in found[1].split(", "):  # bound to something else
                    bound.pop(name, None)
            elif found := re.fullmatch(r" *([\w.]+)(\.add\(|\.append\(| \+= ).*", line):
                if found[1] not in bound:
                    continue
                kind, where = bound[found[1]]
                wanted = {"set": ".add(", "str": " += ", "list": ".append("}[kind]
                uses += 1
                wrong += found[2] != wanted
                far += i - where > 4
                past_others += any(w > where and k != kind for k, w in bound.values())
    assert uses > 800
    assert wrong / uses < 0.02
    assert far / uses > 0.2
    assert past_others / uses > (0.2 if kind == "tinypython" else 0.15)


def test_a_file_is_opened_as_something_before_it_says() -> None:
    told, right = 0, 0
    text = TEXT + TEXTS["drills"]
    for mode, ways in (("r", file_use.READING), ("w", file_use.WRITING)):
        verbs = "|".join(ways)
        other = "w" if mode == "r" else "r"
        for said in (rf"# (?:{verbs}) [^\n]*\n *with ", rf"def (?:{verbs})_\w+\([^\n]*\n *with "):
            good = len(re.findall(rf"{said}open\([^\n]*['\"]{mode}b?['\"]", text))
            bad = len(re.findall(rf"{said}open\([^\n]*['\"]{other}b?['\"]", text))
            told, right = told + good + bad, right + good
    assert told > 150
    assert right / told > 0.97


def test_files_come_back_to_their_own_words() -> None:
    """Of the words in a file's second half, more stand in its first half than in another file's."""
    halves = [
        [
            set(re.findall(r"\b[a-z]{3,}\b", text[start:stop]))
            for start, stop in ((0, len(text) // 2), (len(text) // 2, None))
        ]
        for text in (file.text for file in generate_files(200, seed=6))
    ]
    own = sum(len(first & second) / len(second) for first, second in halves)
    others = sum(len(halves[i - 1][0] & halves[i][1]) / len(halves[i][1]) for i in range(len(halves)))
    assert own > 1.35 * others


@kinds
def test_no_twelve_tokens_of_a_held_out_prompt_are_in_the_corpus(kind: str) -> None:
    """Tokens, names included. A constructor is one idiom whoever writes it, so a few of its are."""
    tokenizer = Tokenizer.default()
    ids = tokenizer.encode(TEXTS[kind])
    known = {tuple(ids[i : i + 12]) for i in range(len(ids) - 11)}
    for task in list_tasks(beside=True):
        prompts = [tokenizer.encode(prompt) for pair in task.pairs("held_out", 40) for prompt in pair.prompts]
        grams = [tuple(p[i : i + 12]) for p in prompts for i in range(len(p) - 11)]
        share = sum(gram in known for gram in grams) / len(grams)
        assert share <= (0.04 if task.name == "class_init" else 0.001), task.name
