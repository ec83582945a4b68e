"""Released checkpoints compute what the reference implementation computed (golden data)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sparsecircuits as sc
from sparsecircuits.models.transformer import KVCache

GOLDEN = Path(__file__).parents[1] / "golden" / "openai_checkpoints"
CASES = sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_logits_and_every_hook_agree(case):
    expected = load_file(GOLDEN / case / "expected.safetensors")
    model = sc.load_model(GOLDEN / case)
    with torch.no_grad(), sc.record(model) as seen:
        logits = model(expected["input_ids"])
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=0)
    hooks = {name.removeprefix("hook/") for name in expected if name.startswith("hook/")}
    assert hooks <= set(seen)
    for name in hooks:
        torch.testing.assert_close(seen[name], expected[f"hook/{name}"], atol=1e-4, rtol=0, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_cache_changes_nothing(case):
    expected = load_file(GOLDEN / case / "expected.safetensors")
    model = sc.load_model(GOLDEN / case)
    ids, cache = expected["input_ids"], KVCache.empty(model.config.n_layer)
    with torch.no_grad():
        parts = [model(ids[:, :7], cache)] + [model(ids[:, t : t + 1], cache) for t in range(7, ids.shape[1])]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected["logits"], atol=1e-4, rtol=0)


def test_last_logits_are_rows_of_the_full_ones():
    expected = load_file(GOLDEN / CASES[0] / "expected.safetensors")
    model = sc.load_model(GOLDEN / CASES[0])
    last = torch.tensor([3, 19, 0])
    with torch.no_grad():
        rows = model.last_logits(expected["input_ids"], last)
    torch.testing.assert_close(rows, expected["logits"][torch.arange(3), last], atol=1e-5, rtol=0)
