"""The tokenizer: exact round trips, the published split, and every task's answer as one token in context."""

import pytest

from sparsecircuits.data.tokenizer import Tokenizer

TOKENIZER = Tokenizer.default()

# (what comes before, the answer, what comes after)
IN_CONTEXT = [
    *[
        (before, quote + ")", after)
        for quote in "'\""
        for before in (
            f"print({quote}no value found",
            f"x = foo.bar({quote}left",
            f"log.info({quote}a line",
            f"f({quote}",
        )
        for after in (" + x", " and y", " or z", " in names", " if a else b", "")
    ],
    *[(f"    print({quote}found", quote + ")\n", "    x = 3\n") for quote in "'\""],
    *[("print", "(" + quote, "hello" + quote + ")") for quote in "'\""],
    *[("text = str", "(" + quote, "") for quote in "'\""],
    ("def f(a, b=None, c", "=None", "):\n"),
    ("def f(a, b=None, c", "=None", ", d=None):\n"),
    ("def f(a, b=3, c", "=", "4):\n"),
    ("def f(a, b, c", "):\n", "    pass\n"),
    ("    current", ".add", "(x)"),
    ("    current", " +=", " x"),
    ('    seen = set()\n    text = ""\n    text', " +=", ' "a"'),
    ("        self.x =", " x", "\n"),
    ("        self.name =", " name", "\n"),
    ("        self.size =", " size", "\n"),
    ("with open(f)", " as", " g:"),
    ("with handle", " as", " g:"),
    ("with open(path, 'r')", " as", " f:\n"),
    ("f = handle", "\n", "g = 3\n"),
    ("x = {3", ":", " 4}"),
    ("x = {name", ":", " 4}"),
    ('x = {"a"', ":", ""),
    ("x = [3", ",", " 4]"),
    ("x = [name", ",", " 4]"),
    ("with open(path, '", "r", "') as f"),
    ("with open(path, '", "w", "') as f"),
    ('with open(path, "', "r", '") as f'),
    ('with open(path, "', "w", '") as f'),
    ("x = [1, 2, 3", "]\n", "y = 3\n"),
    ("x = [1, 2, 3", "]", " + y\n"),
    ("x = [[1, 2], [3, 4", "]]\n", "y = 3\n"),
    ("x = [[1, 2], [3, 4", "]]", " + y\n"),
    ("x = [[a], [b, c", "]]", ""),
    ("x = [[1, 2", "],", " [3]]"),
    ("for x", " in", " xs:\n"),
    ("for item", " in", " items:\n"),
    ("while x", ":", " x = 3"),
    ("while x", ":\n", "    x = 3"),
    ("    else", ":\n", "        x"),
    ("    else", ":", " x = 3"),
    ("    elif", " x", " == 3:\n"),
    ('print(f"total', " {", 'x}")'),
    ('print(f"', "{", "x"),
    ('print(f"value {', "x", "}"),
    ("if x", ":\n", "    y = 3\n"),
    ("if x", ":", " y = 3\n"),
    ("y = a if x", " else", " b\n"),
    ("x, y = y,", " x", "\n"),
    ("a, b = b,", " a", "\n"),
    *[(f"{' ' * (n - 4)}for x in xs:\n", " " * (n - 1), " print(x)\n") for n in (4, 8, 12, 16)],
    *[(f"{' ' * n}while True:\n", " " * (n + 3), " x = 3\n") for n in (0, 4, 8, 12)],
    *[(f"{' ' * n}return True\n", " " * (n - 5), " x = 3\n") for n in (8, 12, 16)],
    ("f = lambda x", ":", " x + 1\n"),
    ("def f", "(", "threshold):\n"),
    ("def load_value", "(", ""),
    ("if x", " ==", " 3:\n"),
    ("    while count", " ==", " 3:\n"),
    ("x", " =", " 3\n"),
    ("for i, x in", " enumerate", "(xs):\n"),
    ("for i in", " range", "(3):\n"),
    ("if x == True", ":\n", "    y\n"),
    ("x = True", "\n", "y = 3\n"),
]


@pytest.mark.parametrize(("before", "answer", "after"), IN_CONTEXT)
def test_answers_are_single_tokens_where_they_stand(before: str, answer: str, after: str) -> None:
    alone = TOKENIZER.encode(before)
    whole = TOKENIZER.encode(before + answer + after)
    if before == 'x = {"a"':  # the quote and the colon are one token, as in the published split
        assert TOKENIZER.token(whole[-1]) == '":'
        return
    if before == 'print(f"':  # the opener takes the brace
        assert TOKENIZER.token(whole[len(TOKENIZER.encode("print(f"))]) == '"{'
        return
    assert whole[: len(alone)] == alone
    assert whole[len(alone)] == TOKENIZER.single_token(answer)
