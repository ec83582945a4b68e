"""An exported program computes what the circuit alone computes: of hand-made circuits with every option, of those that
ship, by a bare interpreter."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.extraction import edges_of, nodes_of
from sparsecircuits.data import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.inference import readable
from sparsecircuits.inference.export import circuit_graphml, circuit_program, readable_program
from sparsecircuits.inference.program import write_program
from sparsecircuits.interop.loading import load_model
from sparsecircuits.interop.pretrained import folder_of
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits
from sparsecircuits.tasks import PairBatch, get_task

RUN = """
import json, runpy, sys
program = runpy.run_path(sys.argv[1])
print(json.dumps([program["predict"](tokens) for tokens in json.load(sys.stdin)]))
"""


def run_bare(program: str, prompts: list[list[int]], folder: Path) -> np.ndarray:
    """Both scores of each prompt, by an interpreter without site packages and without this one's environment."""
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUN, str(path)], input=json.dumps(prompts), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


def by_gates(model: SparseTransformer, circuit: Circuit, batch: PairBatch) -> torch.Tensor:
    """Scores of the circuit alone, by the whole model with gates."""
    return circuit.calibration(all_candidate_logits(model, batch, circuit.gating(model)))


def prompts_of(batch: PairBatch) -> list[list[int]]:
    return [row[: last + 1].tolist() for row, last in zip(batch.tokens, batch.last, strict=True)]


def handmade(
    config: ModelConfig, share: float, seed: int = 0, ablation: str = "mean"
) -> tuple[SparseTransformer, Circuit]:
    """A random model, and a circuit of a share of its nodes that lacks a third of the edges between them."""
    generator = torch.Generator().manual_seed(seed)
    model = SparseTransformer(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.0 if parameter.dim() == 1 else 0.7))
            if parameter.dim() == 2 and not name.startswith("wpe"):
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.3)
        for name, buffer in model.named_buffers():  # of frozen nodes
            drawn = torch.randn(buffer.shape, generator=generator)
            buffer.copy_(drawn < 0.8 if name.endswith("gate") else 0.3 * drawn)
    model.tokenizer = Tokenizer.default()
    space = NodeSpace.of(config)
    frozen = 0.3 * torch.randn(space.size, generator=generator) * (ablation == "mean")
    names = space.names(torch.rand(space.size, generator=generator) < share)
    edges = edges_of(names, model)
    circuit = Circuit(
        task="made", answers=(" x", " y"), model_name="made", model_id=content_hash(model), ablation=ablation,
        target_loss=0.1, nodes=tuple(nodes_of(names, config, space.split(frozen))),
        edges=tuple(edge for place, edge in enumerate(edges) if place % 3), scale=1.5, shift=(0.25, -0.5),
        frozen=encode_frozen(space, frozen),
    )  # fmt: skip
    return model, circuit


def random_batch(model: SparseTransformer, n: int = 12) -> PairBatch:
    rng = np.random.default_rng(0)
    length = model.config.n_ctx
    tokens = rng.integers(0, model.config.vocab_size, (n, length))
    tokenizer = model.tokenizer
    assert tokenizer is not None
    answers = (tokenizer.single_token(" x"), tokenizer.single_token(" y"))
    last = rng.integers(0, length, n)
    return PairBatch(tokens * (np.arange(length) <= last[:, None]), last, np.arange(n) % 2, answers)


MADE = {"vocab_size": 2048, "n_ctx": 9, "n_layer": 2, "d_model": 12, "d_head": 4, "d_mlp": 20}
OPTIONS = [
    {}, {"sink": True}, {"afrac": None}, {"afrac": None, "sink": True}, {"afrac": 0.6, "sink": True},
    {"positions": "added"}, {"positions": "concat", "d_pos_emb": 4, "sink": True},
    {"positions": "concat_sinusoidal", "d_pos_emb": 4}, {"bigram": "none"}, {"bias": False}, {"activation": "relu"},
    {"activation": "gelu_tanh"},
    {"n_head": 2, "d_head": 5, "sink": True}, {"tied_unembed": True}, {"n_layer": 1, "afrac": None},
    {"n_layer": 3, "sink": True, "afrac": 0.8},
    {"offsets": 3}, {"offsets": 2, "sink": True}, {"offsets": 20, "sink": True},
    {"frozen_nodes": True}, {"frozen_nodes": True, "sink": True},
]  # fmt: skip


@pytest.mark.parametrize("share", [0.15, 0.6])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_program_is_the_circuit_alone(options, share):
    model, circuit = handmade(ModelConfig(**{**MADE, **options}), share)
    batch = random_batch(model)
    program = write_program(circuit.on(model), {}, "made")
    namespace: dict = {}
    exec(compile(program, "program", "exec"), namespace)
    found = np.array([namespace["predict"](tokens) for tokens in prompts_of(batch)])
    expected = by_gates(model, circuit, batch).numpy()
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    assert np.ptp(expected[:, 0]) > 0.05  # it depends on the prompt


def test_nothing_kept_or_zero_ablation():
    for share, ablation in ((0.0, "mean"), (0.3, "zero")):
        model, circuit = handmade(ModelConfig(**MADE, sink=True), share, 1, ablation)
        batch = random_batch(model)
        namespace: dict = {}
        exec(write_program(circuit.on(model), {}, "made"), namespace)
        found = np.array([namespace["predict"](tokens) for tokens in prompts_of(batch)])
        expected = by_gates(model, circuit, batch).numpy()
        assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    with pytest.raises(ValueError, match="tokens, not 1 to 9"):
        namespace["predict"]([])
    with pytest.raises(ValueError, match="outside"):
        namespace["predict"]([2048])


@pytest.mark.parametrize(
    "options", [{"norm": "layer"}, {"residual_activation": "relu"}, {"abstopk": ("resid_post_mlp",)}]
)
def test_what_programs_are_not_written_for_is_refused(options):
    model, circuit = handmade(ModelConfig(**MADE, **options), 0.3)
    with pytest.raises(UserError, match="programs are written for"):
        write_program(circuit.on(model), {}, "made")


@pytest.mark.parametrize(
    ("name", "task", "pairs", "lines"),
    [("nano", "single_double_quote", 500, 200), ("versed", "single_double_quote", 30, 200),
     ("nano", "bracket_brace", 30, 230), ("broad", "enumerate_range", 20, 230)],
)  # fmt: skip
def test_programs_of_shipped_circuits_by_a_bare_interpreter(name, task, pairs, lines, tmp_path):
    model = load_model(f"pretrained:{name}")
    circuit = Circuit.load(folder_of(f"pretrained:{name}") / "circuits" / task / "circuit.json")
    bound = get_task(task, tokenizer=model.tokenizer)
    program = circuit_program(circuit, model, bound)
    assert program.count("\n") < lines
    assert all(node.name in program for node in circuit.nodes)
    batch = bound.encode(bound.draw("held_out", pairs, 7))
    found, expected = run_bare(program, prompts_of(batch), tmp_path), by_gates(model, circuit, batch).numpy()
    assert len(found) == 2 * pairs
    assert np.abs(found - expected).max() < 1e-4


@pytest.fixture(scope="module")
def quotes():
    model = load_model("pretrained:nano")
    circuit = Circuit.load(folder_of("pretrained:nano") / "circuits" / "single_double_quote" / "circuit.json")
    return model, circuit, get_task("single_double_quote", tokenizer=model.tokenizer)


def test_a_readable_program_says_how_often_it_agrees(quotes, tmp_path, monkeypatch):
    model, circuit, task = quotes
    monkeypatch.setattr(readable, "TEST", 96)
    found = readable_program(circuit, model, task)
    assert found.agreement >= readable.LEAST
    assert f"{found.agreement:.1%} of 192 held-out prompts" in " ".join(found.text.split())
    assert found.text.count("\n") < 40
    assert "for token in reversed(tokens)" in found.text  # the last quote that was opened
    batch = task.encode(task.draw("held_out", 96, 0))
    scores, expected = run_bare(found.text, prompts_of(batch), tmp_path), by_gates(model, circuit, batch).numpy()
    agreement = ((scores[:, 0] > scores[:, 1]) == (expected[:, 0] > expected[:, 1])).mean()
    assert agreement == pytest.approx(found.agreement)


def test_a_readable_program_that_does_not_agree_is_refused(quotes, monkeypatch):
    model, circuit, task = quotes
    monkeypatch.setattr(readable, "TEST", 24)
    monkeypatch.setattr(readable, "LEAST", 1.01)
    with pytest.raises(UserError, match="no readable program found"):
        readable_program(circuit, model, task)
    deep = Circuit.load(folder_of("pretrained:nano") / "circuits" / "bracket_brace" / "circuit.json")
    with pytest.raises(UserError, match="one head in layer 0"):
        readable_program(deep, model, get_task("bracket_brace", tokenizer=model.tokenizer))


def test_a_graph_has_all_nodes_and_edges(quotes):
    circuit = quotes[1]
    root = ElementTree.fromstring(circuit_graphml(circuit))
    space = "{http://graphml.graphdrawing.org/xmlns}"
    assert [node.get("id") for node in root.iter(f"{space}node")] == circuit.node_names
    edges = [(edge.get("source"), edge.get("target")) for edge in root.iter(f"{space}edge")]
    assert edges == [(edge.source, edge.target) for edge in circuit.edges]
    weights = [float(data.text) for data in root.iter(f"{space}data") if data.get("key") == "edge_weight"]
    assert weights == [edge.weight for edge in circuit.edges]
