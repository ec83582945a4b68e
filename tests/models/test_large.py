"""A model of the paper's second largest size is stored at the size of its nonzeros and loads in seconds."""

import time

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.models.storage import save_native
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.sparsity.projection import Projector
from sparsecircuits.sparsity.schedules import SparsityConfig


@pytest.mark.slow
def test_475_million_parameters_of_which_one_in_250_is_nonzero(tmp_path):
    torch.manual_seed(0)
    model = SparseTransformer(sc.ModelConfig(d_model=2208)).eval()
    Projector(model, SparsityConfig(density=1 / 250))(1.0)
    parameters, nonzeros = count_parameters(model)
    assert parameters > 475_000_000
    assert nonzeros == pytest.approx(parameters / 250, rel=0.01)
    save_native(model, tmp_path)
    table = model.bigram.weight.numel() * 4
    size = (tmp_path / "model.safetensors").stat().st_size - table
    began = time.perf_counter()
    loaded = sc.load_model(tmp_path)
    seconds = time.perf_counter() - began
    print(f"{parameters / 1e6:.1f}M parameters, {nonzeros:,} nonzero: {size / 1e6:.1f} MB, loaded in {seconds:.1f} s")
    assert size < 40e6
    assert seconds < 10
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].view(torch.int32), tensor.view(torch.int32)), name
