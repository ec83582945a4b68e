"""The examples run as their first lines say, and do what `record` and `intervene` do."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sparsecircuits as sc
from randommodels import random_model

EXAMPLES = Path(__file__).parents[1] / "examples"
PROMPT, NODE = 'print("hello', "0.mlp.post_act.5"


def run(name, *arguments):
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def needs(name):
    if name.startswith("nnsight"):
        pytest.importorskip("nnsight")


@pytest.mark.parametrize("name", ["pytorch_hooks.py", "nnsight_trace.py"])
def test_it_reads_and_ablates_the_neuron_that_decides(name, handmade_run):
    needs(name)
    said = run(name, handmade_run, "--prompt", PROMPT, "--node", NODE)
    model = sc.load_model(handmade_run)
    ids = torch.tensor([model.tokenizer.encode(PROMPT)])
    with torch.no_grad(), sc.record(model, r"0\.mlp\.post_act") as seen:
        model(ids)
    shown = [float(line.split()[-1]) for line in said[: ids.shape[1]]]
    assert shown == pytest.approx(seen["0.mlp.post_act"][0, :, 5].tolist(), abs=1e-4)
    whole, ablated = said[-2:]
    assert whole.startswith("whole model: '\")' ")  # the right quote, as long as the neuron is there
    assert ablated.startswith('ablated: "\')" ')


@pytest.mark.parametrize("name", ["pytorch_hooks.py", "nnsight_trace.py"])
def test_it_computes_what_intervene_computes(name):
    needs(name)
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / name)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    model = random_model(sc.ModelConfig(vocab_size=40, n_ctx=12, n_layer=2, d_model=8, d_head=4, sink=True), 3)
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(0))

    def zero(x):
        x = x.clone()
        x[..., 6] = 0
        return x

    for layer in (0, 1):
        site = f"{layer}.mlp.post_act"
        with torch.no_grad(), sc.record(model, site.replace(".", r"\.")) as seen:
            before = model(ids)
        with torch.no_grad(), sc.intervene(model, {site: zero}):
            expected = model(ids)
        place = layer if name.startswith("nnsight") else site
        with torch.no_grad():
            assert torch.equal(example.read(model, place, ids), seen[site])
            torch.testing.assert_close(example.ablated(model, place, 6, ids), expected)
            assert not torch.equal(before, expected)
            assert torch.equal(model(ids), before)  # nothing is left behind
