"""The runtime from a run directory, and generation with it."""

import json

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.cli import main
from sparsecircuits.models import storage
from sparsecircuits.models.generation import generate


def test_a_run_directory_is_read_without_a_dense_matrix(monkeypatch):
    model = sc.load_model("pretrained:nano")
    made = []
    zeros = torch.zeros

    def counted(*size, **more):
        made.append(torch.Size(size[0] if isinstance(size[0], tuple | list) else size).numel())
        return zeros(*size, **more)

    monkeypatch.setattr(torch, "zeros", counted)
    runtime = sc.load_sparse("pretrained:nano")
    monkeypatch.undo()
    assert max(made, default=0) < model.config.d_model**2 // 2
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        assert torch.allclose(runtime(ids), model(ids), atol=1e-4)
    assert runtime.nonzeros == sum(int(p.count_nonzero()) for p in storage_matrices(model))


def storage_matrices(model):
    from sparsecircuits.models.transformer import sparse_matrices

    return sparse_matrices(model).values()


def test_the_same_text_by_both(capsys):
    model, runtime = sc.load_model("pretrained:nano"), sc.load_sparse("pretrained:nano")
    prompt = "for i in range(10):\n    print("
    # More tokens than the context holds: the older half is forgotten on the way.
    assert generate(model, prompt, 150) == generate(runtime, prompt, 150)
    sampled = {"temperature": 0.8, "top_k": 20, "seed": 3}
    assert generate(model, prompt, 20, **sampled) == generate(runtime, prompt, 20, **sampled)
    texts = []
    for name in ("model", "sparse"):
        with pytest.raises(SystemExit) as ended:
            main(["generate", "pretrained:nano", "--prompt", prompt, "--runtime", name, "--json"])
        assert ended.value.code == 0
        texts.append(json.loads(capsys.readouterr().out))
    assert texts[0] == texts[1]


def test_other_formats_are_loaded_whole(tmp_path):
    model = sc.load_model("pretrained:nano")
    sc.convert("pretrained:nano", tmp_path / "hf", "hf")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.allclose(sc.load_sparse(tmp_path / "hf")(ids), model(ids), atol=1e-4)


def test_a_damaged_file_is_named(handmade_run, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(handmade_run, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(sc.UserError, match="damaged"):
        sc.load_sparse(folder)
    packed, metadata = storage.read_safetensors(handmade_run / "model.safetensors")
    for name in [name for name in packed if name.startswith("logit_bias")]:
        del packed[name]
    shapes = json.loads(metadata["sparse_shapes"])
    metadata["sparse_shapes"] = json.dumps({name: shape for name, shape in shapes.items() if name != "logit_bias"})
    metadata["sha256"] = storage.checksum(packed)
    storage.save_file(packed, weights, metadata=metadata)
    with pytest.raises(sc.UserError, match="tensor logit_bias is missing"):
        sc.load_sparse(folder)
