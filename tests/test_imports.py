"""What may import what: packages along one stream, modules without a circle. Read from the sources by syntax tree."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsecircuits

ROOT = Path(sparsecircuits.__file__).parent
COMMON = ("errors", "files", "locks", "seeds", "cache", "runs")
"""Single modules without a place in the stream: anyone may import them, and they import only one another."""
STREAM = {
    "kernels": (),
    "data": (),
    "models": ("kernels", "data"),
    "sparsity": ("kernels", "models"),
    "training": ("kernels", "data", "models", "sparsity"),
    "plots": ("training",),
    "tasks": ("data",),
    "plans": ("kernels", "models"),
    "nodes": ("kernels", "data", "models", "tasks", "plans"),
    "circuits": ("kernels", "data", "models", "tasks", "plans", "nodes"),
    "pruning": ("kernels", "data", "models", "tasks", "plans", "nodes", "circuits"),
    "faithfulness": ("kernels", "data", "models", "tasks", "plans", "nodes", "circuits", "pruning"),
    "planted": ("data", "models", "tasks", "nodes", "circuits", "pruning", "faithfulness"),
    "inference": ("kernels", "data", "models", "tasks", "plans", "nodes", "circuits"),
    "interop": ("data", "models", "sparsity", "tasks", "plans", "nodes", "circuits", "inference"),
    "bridges": (
        "kernels", "data", "models", "sparsity", "training", "plots", "tasks", "nodes", "circuits", "interop",
    ),
    "viewer": ("kernels", "data", "models", "tasks", "nodes", "circuits", "faithfulness", "interop", "bridges"),
    "claims": (
        "data", "models", "sparsity", "training", "tasks", "nodes", "circuits", "pruning", "faithfulness", "interop",
    ),
    "benchmarks": ("kernels", "data", "models", "sparsity", "training", "plans", "inference", "interop"),
    "quickstart": ("data", "models", "tasks", "training", "circuits", "pruning", "faithfulness", "viewer"),
    "cli": (
        "data", "models", "training", "plots", "tasks", "nodes", "circuits", "pruning", "faithfulness",
        "inference", "interop", "bridges", "viewer", "benchmarks", "claims", "quickstart",
    ),
}  # fmt: skip
"""Which packages (or modules beside them) each one may import, in order of the stream: only earlier ones."""


def modules() -> dict[str, Path]:
    """Path by full name of every module of the package, and of every package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str) -> set[str]:
    """The package's modules that one imports, at its head or within a function.

    Imports for type checkers alone do not count: they never run, so no module waits for another, and two classes may
    speak of each other.
    """
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in _running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            found |= {full if (full := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return found & MODULES.keys() - {name}


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def place(name: str) -> str:
    """The package, or the module beside the packages, that a module lies in; "" for the root."""
    return name.split(".")[1] if "." in name else ""


GRAPH = {name: imports_of(name) for name in MODULES}


def test_the_stream_has_all_packages_and_runs_one_way():
    assert {*STREAM, *COMMON, "", "__main__"} == {place(name) for name in MODULES}
    order = list(STREAM)
    for package, may in STREAM.items():
        assert all(order.index(other) < order.index(package) for other in may), package


@pytest.mark.parametrize("package", [*STREAM, *COMMON])
def test_packages_import_only_along_the_stream(package):
    # The root holds only the version and names that are imported on first use.
    allowed = {"", package, *COMMON, *STREAM.get(package, ())}
    against = {
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if place(name) == package and place(other) not in allowed
    }
    assert not against


def test_no_modules_import_one_another_in_a_circle():
    waiting = {name: set(others) for name, others in GRAPH.items()}
    while ready := [name for name, others in waiting.items() if not others & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert not waiting, f"each of these imports another of them: {sorted(waiting)}"


def test_the_function_faithfulness_and_its_package_are_called_alike():
    """Importing a module of the package must not take the function's name from who imports sparsecircuits."""
    script = (
        "import sparsecircuits as sc\n"
        "import sparsecircuits.faithfulness.table as table\n"
        "assert table.write_table and sc.faithfulness is sc.faithfulness\n"
        "try: sc.faithfulness()\n"
        "except TypeError as error: assert 'model' in str(error)\n"
    )
    for head in ("", "import sparsecircuits; first = sparsecircuits.faithfulness; assert callable(first)\n"):
        subprocess.run([sys.executable, "-c", head + script], check=True)
