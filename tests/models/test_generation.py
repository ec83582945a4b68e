"""Settings of generation: odd numbers work or are refused before any pass."""

import math

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.models.generation import pick, stream


@pytest.fixture(scope="module")
def model(handmade_run):
    return sc.load_model(handmade_run)


@pytest.mark.parametrize("temperature", [1e-38, 1e-50, 5e-324])
def test_the_smallest_temperatures_choose_the_likeliest(temperature):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 100
    assert torch.equal(pick(logits, temperature, 7, torch.Generator().manual_seed(1)), logits.argmax(dim=-1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"prompt": "x = 1\n" * 2000}, "do not fit the model's context"),
    ],
)
def test_odd_settings_are_refused_before_any_pass(model, monkeypatch, settings, words):
    monkeypatch.setattr(type(model), "forward", lambda *_a, **_k: pytest.fail("a pass was made"))
    with pytest.raises(sc.UserError, match=words):
        sc.generate(model, **{"prompt": "x", **settings})


def test_a_full_context_is_forgotten_by_half(model):
    ids = torch.ones(1, model.config.n_ctx - 2, dtype=torch.int64)
    assert len(list(stream(model, ids, 6))) == 6
