"""Means saved beside a model stand in for the text that it was trained on."""

from pathlib import Path

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.storage import save_means, save_native
from sparsecircuits.nodes import ablation_values
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.models import quote_model
from sparsecircuits.runs import MEANS_NAME


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = quote_model(Tokenizer.default())
    save_native(model, tmp_path, {"train": {"data": "stdlib"}})
    size = NodeSpace.of(model.config).size
    save_means(model, torch.arange(size, dtype=torch.float32) / size, tmp_path)
    monkeypatch.setattr(ablation_values, "prepare_tokens", _no_text)
    return tmp_path


def _no_text(*_: object) -> None:
    raise LookupError("the corpus was read")


def test_no_text_is_read_where_means_were_saved(folder: Path) -> None:
    means = training_means(sc.load_model(folder))
    assert torch.equal(means, torch.arange(means.numel(), dtype=torch.float32) / means.numel())


def test_means_of_other_weights_are_not_taken(folder: Path) -> None:
    model = sc.load_model(folder)
    with torch.no_grad():
        model.wte.weight[0, 0] += 1.0
    with pytest.raises(LookupError):
        training_means(model)
    (folder / MEANS_NAME).unlink()
    with pytest.raises(LookupError):
        training_means(sc.load_model(folder))


def test_damaged_means_are_refused_in_a_line(folder: Path) -> None:
    path = folder / MEANS_NAME
    model = sc.load_model(folder)
    save_means(model, torch.ones(3), folder)
    with pytest.raises(sc.UserError, match="3 means were saved for a model of"):
        training_means(model)
    save_means(model, torch.full((NodeSpace.of(model.config).size,), torch.inf), folder)
    with pytest.raises(sc.UserError, match="finite"):
        training_means(model)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(sc.UserError, match="damaged"):
        training_means(model)
