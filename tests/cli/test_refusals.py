"""Options and files that cannot be: each a line that says so, in this process; and streams that take no letters."""

import json
import subprocess
import sys
import warnings

import pytest

from sparsecircuits.cli import main
from sparsecircuits.training.checkpoints import checkpoint_steps, save_checkpoint
from sparsecircuits.training.metrics import MetricsLog, read_metrics


@pytest.fixture
def refused(capsys, monkeypatch):
    """Calls a command in this process; what it says on stderr, which is no traceback."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert ended.value.code in (1, 2)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "Error:" not in said, "the name of an exception is no help"
        return " ".join(said.replace("│", " ").split())

    return call


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seed", "-1"), "a seed is a whole number from 0 to 2^64 - 1, not -1"),
        (("--seed", str(1 << 64)), "a seed is a whole number"),
        (("--optimizer.lr", "nan"), "optimizer.lr must be a finite number, got nan"),
        (("--optimizer.weight-decay", "inf"), "optimizer.weight_decay must be a finite number"),
        (("--optimizer.beta1", "nan"), "optimizer.beta1 must be a finite number"),
        (("--sparsity.l0-coef", "nan"), "sparsity.l0_coef must be a finite number"),
        (("--sparsity.density", "nan"), "sparsity.density must be a finite number"),
        (("--model.n-head", "0"), "model.n_head must be at least 1, got 0"),
        (("--model.n-head", "-2"), "model.n_head must be at least 1"),
        (("--model.d-mlp", "-4"), "model.d_mlp must be at least 1, got -4"),
        (("--model.positions", "concat", "--model.d-pos-emb", "-4"), "needs d_pos_emb"),
        (("--model.afrac", "nan"), "model.afrac must be a finite number"),
        (("--minutes", "nan"), "minutes must be a finite number, got nan"),
        (("--minutes", "inf"), "minutes must be a finite number, got inf"),
        (("--eval-tokens", "0"), "eval_tokens must be at least 1"),
        (("--data", "~nosuchuser/x"), 'unknown corpus "~nosuchuser/x"'),
    ],
)
def test_train(refused, tmp_path, options, words):
    assert words in refused("train", "--out", tmp_path / "run", *options)
    assert list(tmp_path.iterdir()) == []


def test_prune_and_eval(refused, tmp_path, handmade_run):
    assert "prune.lr must be a finite number" in refused("prune", handmade_run, "if_equals", "--lr", "nan")
    assert "prune.k_coef must be a finite" in refused("prune", handmade_run, "if_equals", "--k-coef", "inf")
    assert "a seed is a whole number" in refused("prune", handmade_run, "if_equals", "--seed", -1)
    assert "no model at ~nosuchuser/x" in refused("eval", "~nosuchuser/x")


def test_a_largest_seed_trains(corpus, tmp_path):
    import sparsecircuits as sc
    from sparsecircuits.models.config import ModelConfig
    from sparsecircuits.sparsity.schedules import SparsityConfig
    from sparsecircuits.training.config import TrainConfig

    config = TrainConfig(
        model=ModelConfig(n_ctx=16, n_layer=1, d_model=16, d_head=8),
        sparsity=SparsityConfig(density=0.5, sparsifier="hard_concrete"),
        **{"data": str(corpus), "batch_size": 2, "steps": 1, "eval_tokens": 16, "seed": (1 << 64) - 1},
    )
    model = sc.train(config, tmp_path / "run")
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_metrics_lines_that_are_no_objects_with_a_step_are_passed_over(tmp_path):
    lines = ['{"step": 1, "loss": 2}', "[1]", "3", "null", '"x"', "{}", '{"step": "2"}', '{"step": true}', "[" * 9999]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join([*lines, '{"step": 9, "text": "\u2028"}', '{"st']).encode())
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 9]
    MetricsLog(tmp_path, resume_step=5).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2}]


def test_files_with_other_names_are_no_checkpoints(tmp_path):
    for name in ("step-foo.pt", "step-.pt", "step-00000009.sha256", "step-1_0.pt", "step-00000007.pt.bak", "step-x"):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / name).write_text("")
    save_checkpoint(tmp_path, 3, {}, keep=1)
    assert checkpoint_steps(tmp_path) == [3]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 8


@pytest.mark.parametrize("stream", ["closed", "ascii", "latin-1"])
def test_any_stdout_will_do(stream, tmp_path):
    program = [sys.executable, "-m", "sparsecircuits", "tasks"]
    if stream == "closed":
        done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *program], stderr=subprocess.PIPE, text=True)
    else:
        environment = {"PYTHONIOENCODING": stream, "PATH": "", "HOME": str(tmp_path)}
        environment["PYTHONPATH"] = ":".join(sys.path)
        done = subprocess.run(program, capture_output=True, env=environment)
        assert "while_return_true" in done.stdout.decode(stream)
    assert (done.returncode, done.stderr) in ((0, ""), (0, b""))


def test_a_message_with_a_letter_that_stderr_lacks_is_told(tmp_path):
    program = [sys.executable, "-m", "sparsecircuits", "eval", str(tmp_path / "modèle-∞")]
    environment = {"PYTHONIOENCODING": "ascii", "HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(program, capture_output=True, env=environment)
    assert done.returncode == 1
    assert b"mod\\xe8le-\\u221e" in done.stderr
    assert json.dumps("∞") == '"\\u221e"'  # and so JSON never needs more than ASCII
