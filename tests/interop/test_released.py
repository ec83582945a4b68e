"""The released format: what is missing, damaged or malicious is refused in a line."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import sparsecircuits as sc

GOLDEN = Path(__file__).parents[1] / "golden" / "openai_checkpoints" / "plain"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "model")
    return tmp_path / "model"


def test_a_pickle_is_never_executed(copy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"transformer.wte.weight": Bomb()}, copy / "final_model.pt")
    with pytest.raises(sc.UserError, match=r"contains code: it wants \w+\.mkdir, which was refused") as refused:
        sc.load_model(copy)
    assert "weights_only" not in str(refused.value)
    (copy / "final_model.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(sc.UserError, match="damaged or not a plain weights file"):
        sc.load_model(copy)
    assert not (tmp_path / "executed").exists()


def test_truncation_is_refused(copy):
    weights = copy / "final_model.pt"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(sc.UserError, match="damaged"):
        sc.load_model(copy)


def test_keys_are_checked(copy):
    path = copy / "beeg_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "novelty": 1, "afrac_approx": True}))
    with pytest.warns(UserWarning, match="unknown key 'novelty'"):
        sc.load_model(copy)
    path.write_text(json.dumps({**config, "use_tied_aux_matrix": True}))
    with pytest.raises(sc.UserError, match="use_tied_aux_matrix"):
        sc.load_model(copy)
    path.write_text(json.dumps({**config, "n_head": "many"}))
    with pytest.raises(sc.UserError, match="n_head"):
        sc.load_model(copy)


def test_old_files_lack_what_was_added_later(copy):
    state = torch.load(copy / "final_model.pt", weights_only=True)
    del state["final_logits_bias"]
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 24, 24)
    torch.save(state, copy / "final_model.pt")
    assert not sc.load_model(copy).logit_bias.any()
