"""Finders that read the syntax tree: headers, assignments, lines."""

import ast
from collections.abc import Iterator

from sparsecircuits.tasks.realcode.source import Place, Source, walk

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _named_assignments(source: Source) -> Iterator[tuple[ast.Assign, ast.Name]]:
    """Assignments to one plain variable."""
    for node in source.of(ast.Assign):
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node, node.targets[0]


def _equalities(source: Source) -> Iterator[tuple[ast.If, ast.Name]]:
    """`if NAME == VALUE`, with the name."""
    for node in source.of(ast.If):
        test = node.test
        compares = isinstance(test, ast.Compare) and isinstance(test.left, ast.Name)
        if compares and [type(op) for op in test.ops] == [ast.Eq] and source.begins(node, "if "):
            yield node, test.left


def _is_true(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def comparisons(source: Source) -> Iterator[Place]:
    """Behind the variable of `if x == …`, and of `x = …`."""
    for branch, name in _equalities(source):
        yield Place(source.end(name), 0, source.start(branch))
    for node, name in _named_assignments(source):
        yield Place(source.end(name), 1, source.start(node))


def line_ends(source: Source) -> Iterator[Place]:
    """Behind the value of `if x == VALUE`, and of `x = VALUE`, that ends with a name or a number."""
    found = [(node.test, node, 0) for node, _ in _equalities(source)]
    found += [(node.value, node, 1) for node, _ in _named_assignments(source)]  # type: ignore[misc]
    for value, node, side in found:
        if source.in_a_word(source.end(value)):
            yield Place(source.end(value), side, source.start(node))


def loop_headers(source: Source) -> Iterator[Place]:
    """Behind the variable of `for x in …`, and of `while x:`."""
    for loop in source.of(ast.For):
        if isinstance(loop.target, ast.Name):
            yield Place(source.end(loop.target), 0, source.start(loop))
    for node in source.of(ast.While):
        if isinstance(node.test, ast.Name):
            yield Place(source.end(node.test), 1, source.start(node))


def loop_groups(source: Source) -> Iterator[Place]:
    """`for i, x in enumerate(…)`, and `for i in range(…)`."""
    for loop in source.of(ast.For):
        call, target = loop.iter, loop.target
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        two = isinstance(target, ast.Tuple) and [type(name) for name in target.elts] == [ast.Name, ast.Name]
        expected = "enumerate" if two else "range" if isinstance(target, ast.Name) else None
        at = source.spaced(call)
        if call.func.id == expected and at is not None:
            yield Place(at, int(not two), source.start(loop))


def conditions(source: Source) -> Iterator[Place]:
    """Behind the condition of an `if` statement, and of a ternary, that ends with a name or a number."""
    found: list[tuple[ast.If | ast.IfExp, int]] = [(n, 0) for n in source.of(ast.If) if source.begins(n, "if ")]
    found += [(node, 1) for node in source.of(ast.IfExp)]
    for node, side in found:
        at = source.end(node.test)
        if source.in_a_word(at):
            yield Place(at, side, source.start(node))


def parameters(source: Source) -> Iterator[Place]:
    """Behind the last of several parameters: those before it have defaults, or none has."""
    for node in source.of(*_FUNCTIONS):
        given = node.args
        names = [*given.posonlyargs, *given.args]
        if len(names) < 2 or given.vararg or given.kwonlyargs or given.kwarg or names[-1].annotation:
            continue
        if len(given.defaults) != 1:  # a default of the last one alone: nothing before it says so
            yield Place(source.end(names[-1]), int(not given.defaults), source.start(names[-2]))


def lambdas(source: Source) -> Iterator[Place]:
    """Behind the one parameter of a lambda, and behind the name of a function."""
    for node in source.of(ast.Lambda):
        given = node.args
        more = given.posonlyargs or given.vararg or given.kwonlyargs or given.kwarg or given.defaults
        if len(given.args) == 1 and not more:
            yield Place(source.end(given.args[0]), 0, source.start(node))
    for function in source.of(*_FUNCTIONS):
        start, name = source.start(function), function.name.encode()
        header = b"async def " if isinstance(function, ast.AsyncFunctionDef) else b"def "
        if source.raw.startswith(header + name, start):
            yield Place(start + len(header + name), 1, start)


def attributes(source: Source) -> Iterator[Place]:
    """`self.x = x` and `self.y = y` where both are parameters of `__init__`."""
    for function in source.of(ast.FunctionDef):
        names = {argument.arg for argument in (*function.args.posonlyargs, *function.args.args)}
        if function.name != "__init__" or not {"x", "y"} <= names:
            continue
        for node in walk(function, nested=False):
            if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
                continue
            target, value = node.targets[0], node.value
            own = isinstance(target.value, ast.Name) and target.value.id == "self" and target.attr in ("x", "y")
            at = source.spaced(value)
            if own and isinstance(value, ast.Name) and value.id == target.attr and at is not None:
                yield Place(at, int(value.id == "y"), source.start(function))


def swaps(source: Source) -> Iterator[Place]:
    """`x, b = b, x` and `y, b = b, y`."""
    for node in source.of(ast.Assign):
        sides = [
            [name.id for name in side.elts if isinstance(name, ast.Name)]
            for side in (node.targets[0], node.value)
            if isinstance(side, ast.Tuple) and len(side.elts) == 2
        ]
        if len(sides) != 2 or len(sides[0]) != 2 or sides[0] != sides[1][::-1] or sides[0][0] not in ("x", "y"):
            continue
        assert isinstance(node.value, ast.Tuple)
        at = source.spaced(node.value.elts[1])
        if at is not None:
            yield Place(at, int(sides[0][0] == "y"), source.start(node))


def managers(source: Source) -> Iterator[Place]:
    """Behind what `with … as` enters, and what is assigned, where either ends with a name."""
    found: list[tuple[ast.AST, ast.AST, int]] = [
        (item.context_expr, node, 0)
        for node in source.of(ast.With, ast.AsyncWith)
        for item in node.items
        if item.optional_vars is not None
    ]
    found += [(node.value, node, 1) for node, _ in _named_assignments(source)]
    for value, node, side in found:
        last = value
        while isinstance(last, ast.BoolOp | ast.IfExp):
            last = last.values[-1] if isinstance(last, ast.BoolOp) else last.orelse
        if isinstance(last, ast.Name | ast.Attribute) and source.in_a_word(source.end(value)):
            yield Place(source.end(value), side, source.start(node))


def modes(source: Source) -> Iterator[Place]:
    """The mode of `open(…, 'r')`: in its quotes."""
    for call in source.of(ast.Call):
        if not (isinstance(call.func, ast.Name) and call.func.id == "open"):
            continue
        given = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        for mode in given[:1]:
            if not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)):
                continue
            at = source.start(mode)
            quoted = source.raw[at : at + 1] in (b"'", b'"') and not source.raw.startswith((b"'''", b'"""'), at)
            if quoted and mode.value[:1] in ("r", "w"):
                yield Place(at + 1, int(mode.value[0] == "w"), source.start(call))


def accumulators(source: Source) -> Iterator[Place]:
    """Where a variable that was `set()` or an empty string before, in the same function, is added to."""
    for scope in source.of(ast.Module, *_FUNCTIONS):
        uses: list[tuple[int, str, str, ast.Name | None]] = []
        for node in walk(scope, nested=False):
            uses += _use(source, node)
        held: dict[str, tuple[str, int]] = {}
        for start, name, kind, used in sorted(uses, key=lambda use: use[0]):
            before, cue = held.get(name, ("other", 0))
            if used is None:
                held[name] = (kind, start)
            elif kind == before:
                yield Place(source.end(used), int(kind == "string"), cue)


def _use(source: Source, node: ast.AST) -> list[tuple[int, str, str, ast.Name | None]]:
    """(first byte, variable, what it holds, where it is added to or None) of an assignment or of an addition."""
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and isinstance(node.op, ast.Add):
        return [(source.start(node), node.target.id, "string", node.target)]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        method = node.value.func
        if isinstance(method.value, ast.Name) and method.attr == "add":
            return [(source.start(node), method.value.id, "set", method.value)]
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [name for target in targets for name in walk(target) if isinstance(name, ast.Name)]
        stored = [name.id for name in names if isinstance(name.ctx, ast.Store)]
        return [(source.start(node), name, _kind(node.value), None) for name in stored]
    if isinstance(node, ast.For):
        names = [name for name in walk(node.target) if isinstance(name, ast.Name)]
        return [(source.start(node), name.id, "other", None) for name in names]
    return []


def _kind(value: ast.AST) -> str:
    """What an assignment makes of a variable."""
    if isinstance(value, ast.Constant) and value.value == "" and isinstance(value.value, str):
        return "string"
    empty = isinstance(value, ast.Call) and not value.args and not value.keywords
    return "set" if empty and isinstance(value.func, ast.Name) and value.func.id == "set" else "other"  # type: ignore[attr-defined]


def current_accumulators(source: Source) -> Iterator[Place]:
    """The same of a variable called `current`."""
    return (place for place in accumulators(source) if source.raw[: place.at].endswith(b"current"))


def loops_and_lines(source: Source) -> Iterator[Place]:
    """The line behind the header of a `for`, and behind an ordinary line, both 4 columns in."""
    for loop in source.of(ast.For):
        if loop.col_offset == 4 and source.indentation((loop.iter.end_lineno or 0) + 1) == 8:
            yield Place(source.line((loop.iter.end_lineno or 0) + 1), 0, source.start(loop))
    for node in source.of(ast.Assign, ast.AugAssign, ast.Expr, ast.Assert, ast.Delete, ast.Raise):
        if node.col_offset == 4 and source.indentation((node.end_lineno or 0) + 1) == 4:
            yield Place(source.line((node.end_lineno or 0) + 1), 1, source.start(node))


def loops_and_returns(source: Source) -> Iterator[Place]:
    """The line behind `while True:` (deeper), and behind `return True` (less deep), both 8 columns in."""
    for loop in source.of(ast.While):
        if _is_true(loop.test) and loop.col_offset == 8 and source.indentation(loop.lineno + 1) == 12:
            yield Place(source.line(loop.lineno + 1), 0, source.start(loop))
    for node in source.of(ast.Return):
        if _is_true(node.value) and node.col_offset == 8 and source.indentation(node.lineno + 1) == 4:
            yield Place(source.line(node.lineno + 1), 1, source.start(node))


def true_ends(source: Source) -> Iterator[Place]:
    """Behind `while True`, and behind `return True`."""
    for loop in source.of(ast.While):
        if _is_true(loop.test):
            yield Place(source.end(loop.test), 0, source.start(loop))
    for node in source.of(ast.Return):
        if node.value is not None and _is_true(node.value):
            yield Place(source.end(node.value), 1, source.start(node))
