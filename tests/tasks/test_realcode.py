"""Finders: where real code asks a task's question, whatever strings and comments say."""

import time
from pathlib import Path

import pytest

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, stdlib
from sparsecircuits.data.reading import LeftOut, python_text
from sparsecircuits.tasks import Pair, Task
from sparsecircuits.tasks.realcode import FINDERS, find_places
from sparsecircuits.tasks.realcode.cue import best_cue, shifted_accuracy

TOKENIZER = Tokenizer.default()

# name: (code, what must be found as (the last tokens before the place, right answer)).
CASES = {
    "single_double_quote": (
        "a = f('one two') + g(\"it's\")\nb('', \"x\")\nd('back\\'slash')\n# h('in a comment')\n"
        "e(\"h('in a string')\")\nf('''long''')\nx = ('no call')\nfor x in (\"one\"):\n    pass\n"
        "g(f'{a}')\nf(x, 'second')\n",
        [(" two", 0), ("'s", 1), ("')", 1)],
    ),
    "final_kwarg": (
        "def f(a, b=None, c=None): pass\n"
        "def g(self, d, e):\n    pass\n"
        "def h(a=1, *b): pass\n"
        "def i(a, last=1): pass\n"
        "x = 'def f(a, b):\\n'  # def f(a, b):\n"
        "async def k(a=(1, 2), b=lambda x, y: 0):\n    def inner(u, v):\n        pass\n",
        [(" c", 0), (" e", 1), (" b", 0), (" v", 1)],
    ),
    "set_or_string": (
        "a = set()\nb = ''\nc = set()\n"
        "for i in x:\n    a.add(i)\n    b += i\n    # a.add(b)\n"
        "c = []\nc.add(1)\nd += ''\n"
        "def f():\n    b += 'b += a'\n    e = \"\"\n    e += a\n    class K:\n        e += 1\n",
        [("   a", 0), ("   b", 1), ("   e", 1)],
    ),
    "class_init": (
        "class A:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n        self.z = x\n"
        "        other.x = x\n        '''\n        self.x = x\n        '''\n"
        "class B:\n    def __init__(self, x):\n        self.x = x\n    def set(self, x, y):\n        self.x = x\n",
        [(".x =", 0), (".y =", 1)],
    ),
    "with_as": (
        "with a.lock as b:\n    c = a.lock\nwith open(x) as f, g as h:\n    d = open(x)\n    e = 1\n    k = None\n"
        "with a:\n    l = a or b\n# with a as b:\n",
        [(".lock", 0), (".lock", 1), (" g", 0), (" b", 1)],
    ),
    "bracket_brace": (
        "a = {b: 1, c: 2}\na = [b, c]\na = b[c, d]\na = {b, c}\na = [lambda x: 1, 2]\na = [x for x in y]\n"
        "a = ['{b: 1', c]  # [b, c]\na = [[b], c]\na = {1: [d, e]}\na = [b]\na = {**b, c: 1}\nreturn_ = f(x)[y, z]\n"
        "a = [c[1:2], d]\na = {k: v for k, v in z}\na = f'{b:1} {[1, 2]}'\n",
        [("{b", 0), ("[b", 1), (" 1", 1), ("{1", 0), ("[d", 1), ("{k", 0)],
    ),
    "with_open": (
        "open(a, 'r')\nopen(b, \"wb\")\nopen(c, mode='w')\nopen(d)\nopen(e, 'a')\nio.open(f, 'r')\nopen(g, m)\n"
        "# open(h, 'r')\nx = \"open(i, 'r')\"\n",
        [(" '", 0), (' "', 1), ("='", 1)],
    ),
    "bracket_counting": (
        "a = [1, 2]\na = [[1, 2], [3, 4]]\na = [\n    [5, 6]\n]\na = [[7],\n     [8, 9]]\na = f([1, 3])\n"
        "# a = [1, 4]\na = '[' + [x]\na = '''\n[[0]]\n'''\na = b[c[d]]\na = [[[6]]]\na = ([5, 7]\n)\n",
        [(" 2", 0), (" 4", 1), (" 9", 1), ("[x", 0), ("[d", 1), (" 7", 0)],
    ),
    "for_while": (
        "for a in b:\n    while c:\n        pass\nfor (d, e) in f:\n    pass\nwhile not g:\n    pass\n"
        "x = [h for h in i]\n# for a in b:\ny = '''\nwhile c:\n'''\nasync def z():\n    while k: pass\n",
        [(" a", 0), (" c", 1), (" k", 1)],
    ),
    "else_elif": (
        "if a:\n    b\nelif not c:\n    d\nelse:\n    e = (f if g\n        else h)\n# else:\ni = '''\nelse:\n'''\n"
        "for j in k:\n    pass\nelse: pass\n",
        [("elif", 1), ("else", 0), ("else", 0)],
    ),
    "fstring_brace": (
        "print(f'the value {a} and {b}')\nprint('one two')\nprint('size {} of')\nprint(f'{a} first')\n"
        "print(f'braces {{no}} but {c}')\nprint('three four five')\n# print(f'not {d}')\nx = 'plain one two'\n"
        "raise E('a \\n b')\n",
        [(" value", 0), ("one", 1), (" but", 0), (" four", 1)],
    ),
    "if_ternary": (
        "if a == 1:\n    b = c if d else e\nelif f:\n    g = h if i() else j\nif k(): pass\n"
        "l = [m for m in n if o]\n# p = q if r else s\nt = 'u if v else w'\nif x: pass\n",
        [(" 1", 0), (" d", 1), (" x", 0)],
    ),
    "var_swap": (
        "x, a = a, x\ny, b = b, y\nx, c = d, x\nz, a = a, z\n# x, a = a, x\nx, y = y, x\n",
        [(" a,", 0), (" b,", 1), (" y,", 0)],
    ),
    "indent_for": (
        "def f():\n    for a in b:\n        c = 1\n    d = 2\n    e = 3\n\n    g = '''\nx\n    '''\n    for h in i:\n"
        "        pass\n    # for a in b:\n    return d\n",
        [(" b:\n", 0), (" 2\n", 1), ("   '''\n", 1), (" i:\n", 0)],
    ),
    "lambda_func": (
        "a = lambda b: c\ndef d(e): pass\na = lambda: 0\na = lambda f, g: 0\nasync def h(): pass\n"
        "class I:\n    def j(self): return (lambda k: k)\n# def l(m):\nn = 'lambda o: p'\n",
        [(" b", 0), (" d", 1), (" h", 1), (" j", 1), (" k", 0)],
    ),
    "if_equals": (
        "if a == 1:\n    b = 2\nif c == d == e: pass\nif f.g == 1: pass\nh.i = 3\nj = k = 4\nelse_ = 'if l == m:'\n"
        "# if n == o:\nwhile p == q: pass\nr == s\nif not t == u: pass\n",
        [("if a", 0), ("   b", 1), ("\nelse_", 1)],
    ),
    "enumerate_range": (
        "for i, x in enumerate(a):\n    for j in range(3):\n        pass\nfor k in enumerate(b): pass\n"
        "for l, m in zip(c, d): pass\n# for n in range(2):\no = [p for p in range(4)]\n",
        [(" in", 0), (" in", 1)],
    ),
    "var_if": (
        "if a == True:\n    b = None\nif c == 'd':\n    e = f()\nif g == h: i = j  # k\nl = (\n    m)\nn = o\n",
        [(" True", 0), (" None", 1), (" o", 1)],
    ),
    "while_return_true": (
        "class A:\n    def f(self):\n        while True:\n            pass\n    def g(self):\n        return True\n"
        "    def h(self):\n        return True\n\n    x = '''\n        while True:\n            '''\n",
        [(" True:\n", 0), (" True\n", 1)],
    ),
    "while_true_colon": (
        "def f():\n    while True:\n        pass\n    return True\n\ndef g():\n    return False\n    while 1: pass\n"
        "# while True:\n'''\nreturn True\n'''\ndef h():\n    return True  # of course\n",
        [(" True", 0), (" True", 1)],
    ),
}


def bound(names):
    return [task.bind(TOKENIZER) for task in sc.list_tasks(beside=True) if task.name in names]


def found_in(code, name, n_ctx=256):
    places = find_places([code], bound([name]), TOKENIZER, n_ctx)[name]
    spots = sorted((at, side) for side in (0, 1) for _, at in places.spots[side])
    return [(TOKENIZER.decode(places.files[0][:at]), side) for at, side in spots]


def test_every_task_has_a_finder():
    assert set(FINDERS) == {task.name for task in sc.list_tasks(beside=True)}
    assert set(CASES) == set(FINDERS) - {"set_or_string_fixedvarname"}


@pytest.mark.parametrize("name", CASES)
def test_places_are_found_and_nothing_else_is(name):
    code, expected = CASES[name]
    found = found_in(code, name)
    assert [(before[-len(end) :], side) for (before, side), (end, _) in zip(found, expected, strict=True)] == expected
    assert found_in("print('äöü€😀', é)  # 😀\n" + code, name) == [
        ("print('äöü€😀', é)  # 😀\n" + b, s) for b, s in found
    ]


def test_the_variable_current():
    code = "current = set()\nother = set()\nother.add(1)\ncurrent.add(2)\ncurrent = ''\ncurrent += 'x'\n"
    assert [side for _, side in found_in(code, "set_or_string_fixedvarname")] == [0, 1]
    assert len(found_in(code, "set_or_string")) == 3


def test_what_decides_must_stand_within_the_context():
    code = "current = set()\n" + "pass\n" * 60 + "current.add(1)\n"
    assert found_in(code, "set_or_string", 256)
    assert not found_in(code, "set_or_string", 64)
    task = bound(["if_equals"])
    places = find_places(["x = 1\n" * 50], task, TOKENIZER, 16)["if_equals"]
    assert max(map(len, places.contexts(16, (5, 5))[1])) == 16
    assert len(places.contexts(16, (5, 5))[1]) == 5


@pytest.mark.parametrize(
    "code", ["", "\n", "if a ==", "x = 1\n\x00", "def f(:\n", "x = (\n", "'''", "\ud800 = 1\n", "é\n\f"]
)
def test_files_that_do_not_parse_have_no_places(code):
    found = find_places([code, "if a == 1: pass\n"], bound(FINDERS), TOKENIZER, 64)
    assert {file for places in found.values() for side in places.spots for file, _ in side} == {1}


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends_move_nothing(end):
    code = "é = 1\nif a == 1:\n    b = 2\nfor c in d:\n    pass\n".replace("\n", end)
    assert [before[-1] for before, _ in found_in(code, "if_equals")] == list("éab")
    assert [before[-1] for before, _ in found_in(code, "for_while")] == ["c"]


def test_the_time_is_linear():
    def seconds(code):
        start = time.process_time()
        find_places([code], bound(FINDERS), TOKENIZER, 128)
        return time.process_time() - start

    line = "x = [[a, 'é'], {b: 1}] if c == 1 else f(lambda d: 'e')\n"
    for piece in (line, "[", "f(" + line[:-1] + ");", "a = 'b' \\\n 'c'\n"):
        many = max(1, 20_000 // len(piece))
        assert seconds(piece * 4 * many) < 12 * max(seconds(piece * many), 0.02)


def test_a_task_of_ones_own_goes_by_its_answers():
    task = Task("own", "", (")", "]"), lambda rng, split: Pair("f(a", "g[a")).bind(TOKENIZER)
    places = find_places(["f(a) + g[a] + f(b)\n"], [task], TOKENIZER, 8)["own"]
    assert places.counts[1] == 1
    assert places.what == "code that goes on with one of the answers"


@pytest.fixture(scope="module")
def of_the_standard_library():
    texts = []
    for place, (_, path) in enumerate(stdlib.walk(stdlib.stdlib_root(), tests=False)):
        if place % 3 == 0 and path.stat().st_size < 60_000:
            try:
                texts.append(python_text(Path(path)))
            except LeftOut:
                continue
    return find_places(texts, bound(FINDERS), TOKENIZER, 128)


def test_the_standard_library_has_places(of_the_standard_library):
    counts = {name: places.counts for name, places in of_the_standard_library.items()}
    assert sum(sum(both) >= 50 and min(both) >= 5 for both in counts.values()) >= 10, counts


def test_the_answers_stand_where_the_places_are(of_the_standard_library):
    for name, places in of_the_standard_library.items():
        for side in (0, 1):
            assert all(places.files[file][at] in places.ids[side] for file, at in places.spots[side]), name
        assert not set(places.ids[0]) & set(places.ids[1]), name


def test_a_cue_is_chosen_on_one_half_and_scored_on_the_other():
    names = ["a", "b", "c"]
    assert best_cue(([[0]] * 4, [[0, 2]] * 4), names).accuracy == 1
    rule = best_cue(([[0, 1]] * 2 + [[0]] * 2, [[0]] * 4), names)  # true of the first half alone
    assert (rule.token, rule.answer, rule.accuracy) == ("b", 0, 0.5)
    assert best_cue(([[0]], [[1]] * 9), names) is None


def test_a_bias_for_one_answer_is_shifted_away_and_nothing_else():
    assert shifted_accuracy(([5.0, 6.0, 5.0, 6.0], [7.0, 8.0, 7.0, 8.0])) == 1
    assert shifted_accuracy(([5.0, 5.0, 5.0, 5.0], [5.0, 5.0])) == 0.5
    assert shifted_accuracy(([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0])) == 0  # the halves say opposite things
    assert shifted_accuracy(([0.0], [1.0, 2.0])) is None
