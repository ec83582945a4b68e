"""The program as a user runs it: real processes, their output and exit codes. Only those whose start is what is tested
are started by an interpreter of their own; the others are forked."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import forked
from sparsecircuits.cli.arguments import COMMANDS


def run(*arguments):
    return forked.run(*arguments, check=True)


def started(*arguments, **more):
    command = [sys.executable, "-m", "sparsecircuits", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, **more)


def fails(*arguments, code=1):
    done = forked.run(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def quick(steps, pairs):
    return "--steps", steps, "--pairs", 8, "--eval-pairs", pairs, "--restarts", 0, "--lr", 0.04


@pytest.fixture(scope="module")
def pruned(handmade_run):
    """The hand-made run with a circuit found from the command line."""
    done = run("prune", handmade_run, "single_double_quote.plain", "if_equals", *quick(40, 48), "--json")
    return handmade_run, json.loads(done.stdout)


def test_help_is_quick_and_names_every_command():
    start = time.perf_counter()
    text = started("--help").stdout
    assert time.perf_counter() - start < 5  # about 0.2 s on a quiet machine
    assert all(re.search(rf"^  {name} ", text, re.M) for name in COMMANDS)
    assert run("train", "--help").stdout.count("--model.") > 10


def test_the_script_is_the_same_program():
    script = Path(sys.executable).with_name("sparsecircuits")
    assert (
        subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
        == started("--help").stdout
    )


def test_help_page_in_docs_is_up_to_date():
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, root / "docs" / "make_help.py", "--check"], check=True)


def test_prune_json_is_the_contract(pruned):
    directory, printed = pruned
    found, skipped = printed["circuits"]
    assert set(found) == {
        "task", "target_loss", "loss", "loss_full", "loss_ablated", "n_nodes", "n_edges", "seconds", "path",
        "loss_raw", "loss_full_calibrated", "loss_ablated_calibrated", "order", "order_full", "order_ablated",
    }  # fmt: skip
    assert found["loss_full_calibrated"] <= found["loss_full"] <= 0.15
    assert found["order"] == 1.0
    assert (found["n_nodes"], found["n_edges"]) == (7, 4)
    assert found["loss"] <= 0.15
    assert Path(found["path"]) == directory / "circuits" / "single_double_quote.plain" / "circuit.json"
    assert (directory / "circuits" / "single_double_quote.plain" / "report.json").exists()
    assert skipped["task"] == "if_equals"
    assert re.search(r"whole model's loss on if_equals is \S+ calibrated \(\S+ raw\)", skipped["skipped"])


def test_report(pruned):
    path = pruned[1]["circuits"][0]["path"]
    report = json.loads(run("report", path, "--json").stdout)["reports"][0]
    assert report["holds_target"]
    assert "circuit alone" in run("report", path).stdout


def test_report_full(pruned):
    path = pruned[1]["circuits"][0]["path"]
    report = json.loads(run("report", path, "--full", "--seed", 1, "--json").stdout)["reports"][0]
    assert (report["schema_version"], report["mode"], report["seed"]) == (3, "full", 1)
    assert report["verdict"] == "distinguishable from null"
    names = [null["name"] for null in report["nulls"]["nulls"]]
    assert names == ["shuffled_labels", "nonsense", "permuted_weights", "cipher", "random_nodes"]
    assert "<svg" in Path(report["path"]).with_suffix(".html").read_text()
    assert "Null controls" in Path(report["path"]).with_suffix(".md").read_text()


def test_tasks(pruned):
    listed = json.loads(run("tasks", "--json").stdout)["tasks"]
    assert {"name", "description", "answers"} <= set(listed[0])
    shown = json.loads(run("tasks", "if_equals", "--n", 3, "--json").stdout)["tasks"][0]
    assert len(shown["pairs"]) == 3
    options = ("--model", pruned[0], "--n", 32, "--json")
    scored = json.loads(run("tasks", "single_double_quote.plain", *options).stdout)["tasks"]
    assert scored[0]["accuracy"] == 1.0
    assert scored[0]["pairs"] == 32
    assert (scored[0]["order"], scored[0]["loss_calibrated"] < 0.1) == (1.0, True)


def test_a_task_of_ones_own_from_file_to_report(handmade_run, tmp_path):
    import sparsecircuits as sc

    text = sc.write_task_file(sc.get_task("single_double_quote.plain"), tmp_path / "own.jsonl", 40).read_text()
    own = tmp_path / "own.jsonl"
    own.write_text(text.replace('"single_double_quote.plain"', '"own"', 1))
    listed = json.loads(run("tasks", "--task-file", own, "--n", 2, "--json").stdout)["tasks"]
    assert (listed[0]["name"], len(listed[0]["pairs"])) == ("own", 2)
    options = (*quick(40, 16), "--out", tmp_path / "out", "--json")
    found = json.loads(run("prune", handmade_run, "--task-file", own, *options).stdout)["circuits"][0]
    assert (found["task"], found["n_nodes"], found["n_edges"]) == ("own", 7, 4)
    own.unlink()  # the pairs lie beside the circuit
    report = json.loads(run("report", found["path"], "--model", handmade_run, "--json").stdout)["reports"][0]
    assert report["losses"]["circuit"] == pytest.approx(found["loss"], abs=1e-5)


def test_prune_all_makes_a_table_and_a_plot(handmade_run, tmp_path):
    options = (*quick(30, 16), "--out", tmp_path, "--json")
    printed = json.loads(run("prune", handmade_run, "--all", "--workers", 2, *options).stdout)
    assert len(printed["circuits"]) == 20
    assert sum("skipped" in record for record in printed["circuits"]) >= 15
    assert (tmp_path / "table.md").read_text().count("whole model's loss") >= 15
    other = shutil.copytree(handmade_run, tmp_path / "other")
    one = ("single_double_quote.plain", "--beside", other)
    printed = json.loads(run("prune", handmade_run, *one, *options).stdout)
    assert [Path(path).name for path in printed["files"]] == ["table.md", "edges.svg"]
    assert printed["summary"][0]["tasks"] == ["single_double_quote.plain"]
    assert "geometric_mean_edges" in printed["summary"][0]


def test_real_code_is_scored(pruned, corpus):
    scored = json.loads(run("tasks", "--model", pruned[0], "--corpus", corpus, "--json").stdout)
    rows = {row["name"]: row for row in scored["tasks"]}
    assert len(rows) == 20
    assert min(rows["single_double_quote"]["places"]) > 50
    assert sum("skipped" not in row for row in rows.values()) >= 10
    for row in rows.values():
        if "skipped" not in row:
            assert row["scored"] == [min(256, n) for n in row["places"]]
            assert 0 <= row["balanced_accuracy"] <= 1
            assert row["balanced_accuracy_shifted"] is None or 0 <= row["balanced_accuracy_shifted"] <= 1
            assert row["cue_accuracy"] is None or 0 <= row["cue_accuracy"] <= 1
    # The hand-made model counts openers, which comments and long strings lead astray: better than chance, not good.
    assert 0.6 < rows["single_double_quote"]["balanced_accuracy"] < 0.9
    one = json.loads(run("tasks", "else_elif", "--model", pruned[0], "--corpus", corpus, "--n", 9, "--json").stdout)
    assert [(row["name"], row["scored"]) for row in one["tasks"]] == [("else_elif", [9, 9])]


def test_eval_and_generate(pruned):
    statistics = json.loads(run("eval", pruned[0], "--tokens", 4096, "--json").stdout)
    assert statistics["l0"] == sum(m["nonzeros"] for m in statistics["matrices"].values())
    assert {"val_loss", "alive_neurons", "kurtosis_mlp"} <= set(statistics)
    text = json.loads(run("generate", pruned[0], "--prompt", "x = ", "--max-new-tokens", 5, "--json").stdout)["text"]
    assert text.startswith("x = ")


def test_view_serves_on_loopback_alone(pruned):
    process = forked.start("view", pruned[0], "--no-open", "--json", stdout=subprocess.PIPE)
    try:
        url = json.loads(process.stdout.readline())["url"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        assert "<script src=" in urllib.request.urlopen(url).read().decode()
        listed = json.loads(urllib.request.urlopen(url + "api/circuits").read())
        assert [record["task"] for record in listed["circuits"]] == ["single_double_quote.plain"]
        for path, host, status in (("../../etc/passwd", None, 404), ("", "evil.example", 403)):
            request = urllib.request.Request(url + path, headers={"Host": host} if host else {})
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request)
            assert error.value.code == status
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_told(pruned):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} cannot be used" in fails("view", pruned[0], "--no-open", "--port", port)


def test_wrong_use_exits_with_2():
    assert "no command 'fly'" in fails("fly", code=2)
    assert "name at least one task" in fails("prune", "x", code=2)
    fails("train", "--out", "x", "--steps", "many", code=2)
    fails("eval", code=2)
    assert "d_model 100 is no multiple" in fails("train", "--out", "x", "--model.d-model", 100, code=2)


def test_failures_are_one_line(tmp_path, pruned, corpus):
    directory = pruned[0]
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"left"\n')
    stale = tmp_path / "stale.json"
    circuit = json.loads(Path(pruned[1]["circuits"][0]["path"]).read_text())
    stale.write_text(json.dumps({**circuit, "model_id": "0" * 32, "checksum": None}))
    cases = {
        "no model at": ("eval", tmp_path / "nowhere"),
        "holds no model": ("eval", tmp_path / "empty"),
        "no task 'fly'": ("prune", directory, "fly"),
        "belongs to model": ("report", stale, "--model", directory),
        "no circuit at": ("report", tmp_path / "none.json"),
        "no circuit under": ("view", tmp_path / "empty", "--no-open"),
        "do not fit the model's context": ("generate", directory, "--prompt", "x = 1\n" * 200),
        "the prompt is empty": ("generate", directory, "--prompt", ""),
        "target_loss must lie": ("prune", directory, "single_double_quote.plain", "--target-loss", 2),
        "one of steps, tokens and minutes": ("train", "--out", tmp_path / "a", "--steps", 5, "--minutes", 1),
        "lower sparsity.floor": (
            "train",
            "--out",
            tmp_path / "c",
            "--steps",
            1,
            "--sparsity.density",
            0.001,
            "--data",
            corpus,
        ),
        "workers is a number": ("prune", directory, "single_double_quote.plain", "lambda_func", "--workers", "many"),
        "line 1: no JSON": ("tasks", "--task-file", broken),
        "was not made by quickstart": ("quickstart", "--out", directory, "--no-open"),
    }
    for words, arguments in cases.items():
        errors = [line for line in fails(*arguments).splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert words in errors[0]
    assert not (tmp_path / "c" / "model.safetensors").exists()


def test_debug_shows_the_traceback(tmp_path):
    done = forked.run("eval", tmp_path / "nowhere", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_closed_or_full_stdout_is_no_traceback():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sparsecircuits", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_works_from_a_read_only_home(pruned, tmp_path):
    started("tasks", "--json", env={**os.environ, "HOME": "/nonexistent"})
