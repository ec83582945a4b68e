"""The page that is one file, as quickstart writes it: all that can be shown without the model."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_page import NEURON, node

import sparsecircuits as sc
from sparsecircuits.cli import arguments, commands
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.interop.pretrained import folder_of
from sparsecircuits.tasks import SPLITS
from sparsecircuits.tasks.own import FileTask
from sparsecircuits.viewer.offline import write_offline

MOST_BYTES = 1_500_000
# Circuits that ship, of 41 to 60 nodes, in models of 2 and of 4 layers.
LARGE = [("apt", "set_or_string_fixedvarname"), ("nano", "lambda_func"), ("nano", "var_if"), ("broad", "class_init")]


@pytest.fixture(scope="module")
def written(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = circuit_files(run_dir)[0]
    model, circuit = sc.load_model(run_dir), sc.Circuit.load(path)
    out = tmp_path_factory.mktemp("offline") / "circuit.html"
    return write_offline(out, path, model, circuit, sc.get_task(circuit.task, model.tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), LARGE)
def test_a_page_of_a_large_circuit_is_no_larger(name: str, task: str, tmp_path: Path) -> None:
    folder = folder_of(f"pretrained:{name}")
    path = folder / "circuits" / task / "circuit.json"
    model, circuit = sc.load_model(folder), sc.Circuit.load(path)
    file = write_offline(tmp_path / "page.html", path, model, circuit, sc.get_task(task, model.tokenizer))
    print(f"{len(circuit.nodes)} nodes: {file.stat().st_size:,} bytes")
    assert file.stat().st_size < MOST_BYTES


@pytest.fixture
def page(browser: Any, written: Path) -> Iterator[Any]:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
    opened = context.new_page()
    opened.goto(written.as_uri())
    opened.wait_for_selector(".vertex.token")
    yield opened
    context.close()


@pytest.mark.browser
def test_it_has_the_card_the_curve_and_examples(page: Any, written: Path) -> None:
    assert written.stat().st_size < MOST_BYTES
    assert page.locator("#picture .caption").count() > 0
    page.keyboard.press("c")
    assert "No card" not in page.inner_text("#drawer")
    page.wait_for_selector("#drawer .bars")
    page.keyboard.press("Escape")
    page.click(node(NEURON))
    page.wait_for_selector("#panel .histogram")
    assert page.locator("#panel .band").count() >= 2
    page.focus("#size")
    page.wait_for_selector(".loss-curve")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#picture .vertex.node.outside")


@pytest.mark.browser
def test_it_names_no_key_that_cannot_work(page: Any) -> None:
    assert "1 2 3 4" not in page.inner_text("#panel")
    page.keyboard.press("?")
    keys = page.locator("#drawer kbd").all_inner_texts()
    assert {"1", "2", "3", "4", "[ ]", "t", "s", "r"} & set(keys) == set()
    assert {"c", "n p", "/"} <= set(keys)


def test_quickstart_and_prune_end_with_the_line_to_type_next(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = circuit_files(run_dir)[0]
    result = {"run": "my run", "circuit": str(path), "page": "circuit.html"}
    monkeypatch.setattr("sparsecircuits.quickstart.run_quickstart", lambda *_: result)
    commands.quickstart(arguments.Quickstart(open=False))
    assert capsys.readouterr().out.splitlines()[-1].strip() == "sparsecircuits view 'my run'"
    command: Any = SimpleNamespace(out=None, model=Path("run"), beside=())
    one, two = (
        [{"path": "run/circuits/a/circuit.json"}],
        [{"path": "out/a/circuit.json"}, {"path": "out/b/circuit.json"}],
    )
    assert commands._view_of(one, command) == "sparsecircuits view run/circuits/a/circuit.json"
    command.out = Path("out")
    assert commands._view_of(two, command) == "sparsecircuits view out --model run"


def test_show_takes_a_task_of_ones_own(run_dir: Path) -> None:
    model, circuit = sc.load_model(run_dir), sc.Circuit.load(circuit_files(run_dir)[0])
    shipped = sc.get_task(circuit.task, model.tokenizer)
    pool = {split: tuple(shipped.draw(split, 8)) for split in SPLITS}
    own = FileTask("mine", "", shipped.answers, shipped.sample, None, pool)
    mine = circuit.model_copy(update={"task": "mine"})
    without = sc.show(mine, model).page
    assert "no task 'mine'" in without
    assert '"prompts":[' not in without
    assert '"prompts":[' in sc.show(mine, model, task=own).page
