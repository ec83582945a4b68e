"""What README and docs say to type works: every block is read, every command is parsed by the program's own parser,
and what is quick is run, page by page, in the order in which it stands.

Pages are followed in a folder with `runs/nano` and `quickstart`, both a copy of `pretrained:nano`. Blocks that a page
calls slow are left to `make test-slow`; which commands are parsed and not run, and why, says NOT_RUN.
"""

import ast
import re
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import sparsecircuits as sc
from docblocks import LANGUAGES, ROOT, Block, blocks_of, commands_of, pages
from sparsecircuits.cli import main
from sparsecircuits.cli.arguments import COMMANDS, Common, parse

TUTORIAL = "docs/tutorial.md"
NOT_RUN = {
    "quickstart": "trains for minutes; tests/test_quickstart.py",
    "train": "trains for minutes; the tutorial's end, tests/training",
    "eval": "the tutorial's end, tests/cli",
    "prune": "takes minutes on a shipped model; the tutorial's end in Python, tests/cli",
    "backups": "prunes again and again; tests/cli/test_backups_command.py",
    "report": "takes minutes on a shipped model; tests/cli, tests/faithfulness",
    "view": "serves until it is stopped; tests/viewer",
    "convert": "some are downloaded; tests/interop",
    "edit": "audits all tasks; tests/bridges",
    "bridge": "trains for minutes; tests/bridges",
    "steer": "needs a bridge; tests/bridges",
    "plot": "needs the curves of a run; the tutorial's end, tests/plots",
    "bench": "times this machine for minutes; tests/cli",
    "reproduce": "measures for minutes; tests/claims",
    "tasks --model": "scores twenty tasks; tests/cli",
    "tasks --shortcuts": "tries thousands of rules; tests/tasks/test_shortcuts.py",
    "export --readable": "searches for a program; the tutorial",
}
"""Commands that are parsed alone, and what runs them instead; with an option, those that have it."""
BLOCKS = [block for page in pages() for block in blocks_of(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def at(blocks: list[Block]) -> list:
    return [pytest.param(block, id=block.place) for block in blocks]


def why_not_run(command: list[str]) -> str | None:
    """Why a command is parsed and not run, if it is not. command: without the program's name."""
    if command[0] == "reproduce" and "--list" in command:
        return None
    return next((why for key, why in NOT_RUN.items() if set(key.split()) <= set(command)), None)


def own_part(words: list[str]) -> list[str] | None:
    """Of a command line, what our program gets; None where something else is called."""
    if "-m" in words and words[words.index("-m") + 1] == "sparsecircuits":
        return words[words.index("-m") + 2 :]
    return words[words.index("sparsecircuits") + 1 :] if "sparsecircuits" in words and words[0] != "pip" else None


def check_own(command: list[str]) -> None:
    """The program takes it, and the tasks and claims that it names exist."""
    if command[0] == "train":  # with it the parser reads the run that is gone on with
        command = [word for word in command if word != "--resume"]
    try:
        parsed: Common = parse(command)
    except SystemExit as error:
        pytest.fail(f"{' '.join(command)}: the program exits with {error.code}")
    named = {"prune": ("tasks",), "backups": ("task",), "tasks": ("name",), "export": ("task",), "steer": ("task",)}
    for field in named.get(command[0], ()):
        value = getattr(parsed, field)
        for task in value if isinstance(value, tuple) else filter(None, [value]):
            sc.get_task(task)
    for field in ("remove", "keep", "spare") if command[0] == "edit" else ():
        for circuit in getattr(parsed, field):
            if "/" not in circuit and ":" not in circuit:
                sc.get_task(circuit)
    if command[0] == "reproduce":
        from sparsecircuits.claims.catalogue import CLAIMS

        assert set(parsed.claims) <= set(CLAIMS), command


def check_other(words: list[str]) -> None:
    """Another program's command: what of ours it names exists."""
    program, rest = words[0], words[1:]
    options = [word for word in rest if word.startswith("--")]
    if program == "make":
        rules = (ROOT / "Makefile").read_text(encoding="utf-8")
        for word in rest:
            assert re.search(rf"^{word.split('=')[0]}\s*(:|\?=)", rules, re.M), f"make {word}"
    elif program == "python":
        text = (ROOT / rest[0]).read_text(encoding="utf-8")
        for option in options:
            assert option in text or f"{option[2:].replace('-', '_')}:" in text, f"{rest[0]} takes no {option}"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = [name for word in rest for part in re.findall(r"\[(.+)\]", word) for name in part.split(",")]
        assert rest[0] == "install"
        assert set(asked) <= set(extras), words
    elif program == ".ci/run":
        assert (ROOT / "Makefile").exists()  # the sdist has no .ci
    else:
        assert program == "ray", f"{' '.join(words)}: nothing here checks {program}"


@pytest.mark.parametrize("page", pages())
def test_blocks_say_what_they_are(page):
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{block.place}: a block in {block.language or 'no language'}"
    outside = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    indented = re.findall(r"^ {4,}(?:sparsecircuits |sc\.|python |pip ).*", outside, re.M)
    assert not indented, f"{page}: code that is no fenced block: {indented}"


@pytest.mark.parametrize("block", at(SHELL))
def test_commands_are_taken(block):
    found = commands_of(block)
    assert found, f"{block.place}: no command"
    for words in found:
        own = own_part(words)
        if own is None:
            check_other(words)
        else:
            check_own(own)


@pytest.mark.parametrize("block", at(PYTHON))
def test_python_names_what_there_is(block):
    tree = ast.parse(block.text, block.place)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sc"
    }
    assert used <= set(sc.__all__), f"{block.place}: sparsecircuits has no {used - set(sc.__all__)}"


def test_every_reason_is_for_a_command():
    assert {key.split()[0] for key in NOT_RUN} < set(COMMANDS)
    assert why_not_run(["generate", "pretrained:nano"]) is None
    assert why_not_run(["reproduce", "--list"]) is None
    assert why_not_run(["tasks", "var_swap"]) is None
    assert why_not_run(["tasks", "--model", "runs/nano"]) is not None


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder to follow a page in."""
    shutil.copytree(ROOT / "pretrained" / "nano", tmp_path / "runs" / "nano")
    (tmp_path / "quickstart").symlink_to(tmp_path / "runs" / "nano", target_is_directory=True)
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(blocks: list[Block], everything: bool) -> int:
    """Run blocks in order, Python in one namespace; how many blocks and commands ran. everything: also commands that
    NOT_RUN names, but for those that never end or install."""
    names: dict = {"__name__": "__main__"}
    done = 0
    for block in blocks:
        if block.needs is not None and find_spec(block.needs) is None:
            continue
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
            done += 1
        for words in commands_of(block) if block.language == "bash" else []:
            own = own_part(words)
            if words[0] != "sparsecircuits" or (own[0] == "view" if everything else why_not_run(own)):
                continue
            with pytest.raises(SystemExit) as ended:
                main(own)
            assert not ended.value.code, f"{block.place}: {' '.join(words)} exits with {ended.value.code}"
            done += 1
    return done


FOLLOWED = [page for page in pages() if page not in ("CONTRIBUTING.md", "examples/README.md", TUTORIAL)]


# TransformerLens, on a page that needs it, warns of what changes in it.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("page", FOLLOWED)
def test_what_is_quick_runs_in_order(page, desk):
    follow([block for block in blocks_of(page) if block.slow is None], everything=False)


def test_the_tutorial_runs_from_its_first_line(desk):
    quick = [block for block in blocks_of(TUTORIAL) if block.slow is None]
    assert follow(quick, everything=True) > 12
    assert {"circuit.json", "circuit.svg", "exact.py", "readable.py"} <= {path.name for path in desk.iterdir()}


@pytest.mark.slow
def test_the_tutorial_runs_to_its_last_line(desk):
    follow(blocks_of(TUTORIAL), everything=True)
    assert (desk / "mine.json").exists()
    assert (desk / "curves.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in FOLLOWED if any(block.slow for block in blocks_of(page))])
def test_slow_blocks_run_too(page, desk):
    follow(blocks_of(page), everything=False)


PAGE = """# A page
<!-- block: file=mine.py -->
```python
x = 1
```
<!-- block: needs: no_such_module -->
```python
raise SystemExit
```
<!-- block: slow: it takes a minute -->

```bash
RAY_ADDRESS=auto sparsecircuits prune RUN \\
    --all  # a comment
```
"""


def test_blocks_are_found_with_what_is_said_of_them():
    first, lacking, second = blocks_of("page.md", PAGE)
    assert (first.language, first.line, first.text, first.file, first.slow) == ("python", 3, "x = 1\n", "mine.py", None)
    assert lacking.needs == "no_such_module"
    assert follow([lacking], everything=True) == 0
    assert (second.file, second.slow) == (None, "it takes a minute")
    assert commands_of(second) == [["sparsecircuits", "prune", "RUN", "--all"]]


@pytest.mark.parametrize(
    "text", ["```python\nx = 1\n", "<!-- block: slow: why -->\n\nwords\n", "<!-- block: quick -->\n```\n```\n"]
)
def test_a_page_that_is_no_page_is_told(text):
    with pytest.raises(ValueError, match=r"^page\.md:\d+: "):
        blocks_of("page.md", text)


@pytest.mark.parametrize(
    "words",
    ["prune RUN no_such_task", "prune RUN --no-such-option", "no-such-command", "reproduce no_such_claim"],
)
def test_what_the_program_refuses_fails(words):
    with pytest.raises((pytest.fail.Exception, sc.UserError, AssertionError)):
        check_own(words.split())


@pytest.mark.parametrize(
    "words", ["make no-such-target", "pip install sparsecircuits[nothing]", "curl x", "python no.py"]
)
def test_what_names_nothing_fails(words):
    with pytest.raises((AssertionError, OSError)):
        check_other(words.split())
