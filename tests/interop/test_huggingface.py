"""The two lines of a Hugging Face user: Auto classes, generation, padding, loss, pipeline, Trainer, Hub."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import venv

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, pipeline

import sparsecircuits as sc
from randommodels import configs, random_model
from sparsecircuits.data import Tokenizer
from sparsecircuits.interop import huggingface_export
from sparsecircuits.interop.huggingface import SparseCircuitsConfig, SparseCircuitsForCausalLM, modeling_sparsecircuits
from sparsecircuits.interop.huggingface.configuration_sparsecircuits import CACHE_NAMES
from sparsecircuits.interop.huggingface.training import SparsityCallback
from sparsecircuits.models.generation import stream
from sparsecircuits.models.transformer import sparse_matrices
from sparsecircuits.sparsity.schedules import SparsityConfig

PROMPTS = ["def f(x):\n    return", "x", "for name in names:\n    print("]
CONFIG = sc.ModelConfig(
    vocab_size=2048,
    n_ctx=48,
    n_layer=2,
    d_model=32,
    d_head=8,
    positions="concat",
    d_pos_emb=4,
    sink=True,
    offsets=3,
    frozen_nodes=True,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(our model, the directory that it was exported to)"""
    model = random_model(CONFIG)
    model.tokenizer, model.name = Tokenizer.default(), "tiny"
    directory = tmp_path_factory.mktemp("hf") / "exported"
    sc.convert(_native(model, tmp_path_factory), directory, "hf")
    return model, directory


def _native(model, tmp_path_factory):
    from sparsecircuits.models.storage import save_native

    directory = tmp_path_factory.mktemp("native")
    save_native(model, directory)
    return directory


def greedy(model, ids, n):
    return torch.stack(list(stream(model, ids, n)), dim=1)


def test_greedy_generation_is_ours_single_and_left_padded(exported):
    ours, directory = exported
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert isinstance(model, SparseCircuitsForCausalLM)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    assert batch["attention_mask"].min() == 0  # there is padding
    together = model.generate(**batch, **settings)[:, -12:]
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([ours.tokenizer.encode(prompt)])
        expected = greedy(ours, ids, 12)
        single = tokenizer(prompt, return_tensors="pt")
        assert torch.equal(single["input_ids"], ids)
        assert torch.equal(model.generate(**single, **settings)[:, -12:], expected)
        assert torch.equal(together[row : row + 1], expected)


@pytest.mark.parametrize("text", ["x = '<|endoftext|>'\n", "<|endoftext|>", "a<|endoftext|><|endoftext|>b", "é 中\n"])
def test_the_exported_tokenizer_reads_no_special_token_in_text(exported, text, tmp_path):
    ours, directory = exported
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.save_pretrained(tmp_path)
    for reader in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert reader(text)["input_ids"] == ours.tokenizer.encode(text)
        assert reader([text])["input_ids"] == [ours.tokenizer.encode(text)]
        assert reader.decode(reader(text)["input_ids"]) == text
        assert reader.eos_token_id == ours.tokenizer.eot_id
        assert reader.decode([ours.tokenizer.eot_id], skip_special_tokens=True) == ""


@given(configs(), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_left_padding_changes_nothing(config, padding, seed):
    model = huggingface_export.to_hf(random_model(config, seed))
    ids = torch.randint(0, 40, (2, 12 - padding), generator=torch.Generator().manual_seed(seed))
    padded = torch.cat((torch.full((2, padding), 7), ids), dim=1)
    mask = torch.cat((torch.zeros(2, padding), torch.ones_like(ids)), dim=1).long()
    with torch.no_grad():
        expected = model(ids).logits
        found = model(padded, attention_mask=mask)
        assert torch.isfinite(found.logits).all()
    torch.testing.assert_close(
        found.logits[:, padding:], expected, atol=1e-5 * (1 + float(expected.abs().max())), rtol=0
    )


def test_beams_sampling_and_logits_to_keep(exported):
    _, directory = exported
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    assert model.generate(**batch, max_new_tokens=4, num_beams=3, do_sample=False).shape[0] == 3
    assert model.generate(**batch, max_new_tokens=4, do_sample=True, top_k=5).shape[0] == 3
    with torch.no_grad():
        whole, last = model(**batch).logits, model(**batch, logits_to_keep=1).logits
        torch.testing.assert_close(last, whole[:, -1:])
        as_tuple = model(**batch, return_dict=False)
    assert torch.equal(as_tuple[0], whole)
    with pytest.raises(ValueError, match="context of 48"):
        model(torch.zeros(1, 49, dtype=torch.long))


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_the_cache_has_the_name_of_the_installed_version(name, monkeypatch):
    """transformers 5.24 renamed `past_key_values` to `cache`: under either name it goes in, and under that of
    the installed version it comes out, also where no padding mask would show that it was lost."""
    fields = {"loss": None, "logits": None, name: None, "hidden_states": None, "attentions": None}
    output = dataclasses.make_dataclass("Output", [(field, object, None) for field in fields])
    monkeypatch.setattr(modeling_sparsecircuits, "CausalLMOutputWithPast", output)
    monkeypatch.setattr(modeling_sparsecircuits, "CACHE_NAME", name)
    model, ids = huggingface_export.to_hf(random_model(CONFIG)), torch.arange(12).unsqueeze(0)
    with torch.no_grad():
        expected = model(ids, use_cache=False)
        assert getattr(expected, name) is None
        for argument in CACHE_NAMES:
            cache = getattr(model(ids[:, :7]), name)
            assert cache.get_seq_length() == 7
            second = model(ids[:, 7:], **{argument: cache})
            torch.testing.assert_close(second.logits, expected.logits[:, 7:], atol=1e-4, rtol=0)
    assert set(CACHE_NAMES) <= set(model.config.keys_to_ignore_at_inference)


def test_more_than_the_context_is_refused_before_any_pass(exported, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(exported[1])
    n_ctx = model.config.n_ctx
    ids, mask = torch.ones(1, n_ctx, dtype=torch.int64), torch.ones(1, n_ctx, dtype=torch.int64)
    mask[:, :-4] = 0  # padding on the left takes no room
    assert model.generate(ids, attention_mask=mask, max_new_tokens=2, do_sample=False).shape[1] == n_ctx + 2
    monkeypatch.setattr(type(model), "forward", lambda *_a, **_k: pytest.fail("a pass was made"))
    for more in ({"max_new_tokens": 2}, {"attention_mask": mask, "max_new_tokens": n_ctx - 2}):
        with pytest.raises(ValueError, match="do not fit the model's context"):
            model.generate(ids, **more)


def test_the_card_says_what_it_was_tested_with(exported):
    said = (exported[1] / "README.md").read_text()
    assert "Tested with transformers 5.0.0, " in said
    assert "`<|endoftext|>`" in said


def test_loss_and_attentions(exported):
    ours, directory = exported
    model = AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.randint(0, 2048, (2, 20))
    labels = ids.clone()
    labels[0, :5] = -100
    with torch.no_grad():
        output = model(ids, labels=labels, output_attentions=True)
        logits = ours(ids)[:, :-1]
    expected = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(output.loss, expected)
    pattern = output.attentions[0]
    assert pattern.shape == (2, 4, 20, 20)
    assert (pattern.sum(-1) < 1).all()  # the sink takes its share
    assert not pattern.triu(1).any()


def test_pipeline(exported):
    ours, directory = exported
    write = pipeline("text-generation", model=str(directory), tokenizer=str(directory), device="cpu")
    text = write("def f(x):", max_new_tokens=6, do_sample=False)[0]["generated_text"]
    assert text == sc.generate(ours, "def f(x):", 6)


def test_save_pretrained_alone_makes_a_loadable_directory(exported, tmp_path):
    ours, directory = exported
    model = AutoModelForCausalLM.from_pretrained(directory)
    model.save_pretrained(tmp_path)
    again = sc.load_model(tmp_path)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["auto_map"]["AutoModelForCausalLM"] == "modeling_sparsecircuits.SparseCircuitsForCausalLM"


def test_a_model_of_ones_own_begins_like_ours():
    torch.manual_seed(0)
    config = SparseCircuitsConfig(
        vocab_size=300, n_ctx=16, n_layer=2, d_model=64, positions="concat_sinusoidal", d_pos_emb=6
    )
    model, ours = SparseCircuitsForCausalLM(config), huggingface_export.from_hf(SparseCircuitsForCausalLM(config))
    assert config.hidden_size == 64
    assert config.num_attention_heads == 4
    fresh = sc.SparseTransformer(ours.config)
    for name, tensor in fresh.state_dict().items():
        found = model.state_dict()[name]
        assert found.std().item() == pytest.approx(tensor.std().item(), rel=0.2, abs=1e-9), name
        assert found.mean().item() == pytest.approx(tensor.mean().item(), abs=0.01), name
    assert torch.equal(model.wpe.weight, fresh.wpe.weight)
    frozen = {name for name, p in fresh.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, p in model.named_parameters() if not p.requires_grad}


def test_the_stock_trainer_keeps_l0(tmp_path):
    torch.manual_seed(0)
    model = SparseCircuitsForCausalLM(
        SparseCircuitsConfig(vocab_size=64, n_ctx=16, n_layer=1, d_model=64, d_mlp=64, bigram="none")
    )
    data = [
        {"input_ids": row, "labels": row} for row in (torch.arange(16).repeat(64, 1) + torch.arange(64)[:, None]) % 64
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=60, per_device_train_batch_size=16, learning_rate=1e-2, report_to=[],
        logging_steps=10, save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    sparsity = SparsityConfig(density=0.1, floor=1)
    trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[SparsityCallback(sparsity)])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    for name, matrix in sparse_matrices(model).items():
        assert int(matrix.count_nonzero()) <= int(0.1 * matrix.numel()), name
    trainer.save_model(tmp_path / "saved")
    ours = sc.load_model(tmp_path / "saved")
    ids = data[3]["input_ids"].unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), model.eval()(ids).logits, atol=1e-4, rtol=0)


USE = """
    import sys, json, torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    assert not any(name.split(".")[0] == "sparsecircuits" for name in sys.modules)
    try:
        import sparsecircuits
        raise SystemExit("the package is there")
    except ImportError:
        pass
    directory, prompts = sys.argv[1], json.loads(sys.argv[2])
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
    assert AutoTokenizer.from_pretrained(directory)(prompts[0]) == tokenizer(prompts[0])  # nobody there to ask
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    texts = model.generate(**batch, max_new_tokens=10, do_sample=False, eos_token_id=None)[:, -10:].tolist()
    alone = [model.generate(**tokenizer(p, return_tensors="pt"), max_new_tokens=10, do_sample=False,
             eos_token_id=None)[0, -10:].tolist() for p in prompts]
    with torch.no_grad():
        logits = model(tokenizer(prompts[0], return_tensors="pt")["input_ids"]).logits[0, -1].tolist()
    print("\\n" + json.dumps({"together": texts, "alone": alone, "logits": logits}))
"""


def assert_used_without_the_package(python, exported, tmp_path, prelude=""):
    ours, directory = exported
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", prelude + textwrap.dedent(USE), str(directory), json.dumps(PROMPTS)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    expected = [greedy(ours, torch.tensor([ours.tokenizer.encode(p)]), 10)[0].tolist() for p in PROMPTS]
    assert said["together"] == said["alone"] == expected
    with torch.no_grad():
        logits = ours(torch.tensor([ours.tokenizer.encode(PROMPTS[0])]))[0, -1]
    torch.testing.assert_close(torch.tensor(said["logits"]), logits, atol=1e-5, rtol=0)


def test_remote_code_runs_without_this_package(exported, tmp_path):
    hide = "import sys\n"
    hide += "import importlib.abc\nclass Hide(importlib.abc.MetaPathFinder):\n"
    hide += "    def find_spec(self, name, *rest):\n"
    hide += "        if name.split('.')[0] == 'sparsecircuits': raise ImportError(name)\n"
    hide += "sys.meta_path.insert(0, Hide())\n"
    assert_used_without_the_package(sys.executable, exported, tmp_path, hide)


@pytest.mark.slow
def test_remote_code_runs_in_a_fresh_environment(exported, tmp_path):
    """Only torch, transformers and safetensors are installed there."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", f"torch=={torch.__version__.split('+')[0]}"]
    subprocess.run([*install, "transformers", "safetensors"], check=True)
    assert_used_without_the_package(python, exported, tmp_path)


def test_push_to_hub_uploads_what_save_writes(exported, monkeypatch):
    ours, _ = exported
    seen = {}

    class Api:
        def __init__(self, token):
            seen["token"] = token

        def create_repo(self, name, private, exist_ok):
            seen.update(name=name, private=private)
            return f"https://hub/{name}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            seen["files"] = sorted(os.listdir(folder_path))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert huggingface_export.push_to_hub(ours, "me/tiny", token="t") == "https://hub/me/tiny"
    assert seen["private"] is True
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(seen["files"])
    assert {"modeling_sparsecircuits.py", "configuration_sparsecircuits.py"} <= set(seen["files"])
