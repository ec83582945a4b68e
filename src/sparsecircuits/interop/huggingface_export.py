"""Hugging Face directories, written: weights, config, the code that runs them, tokenizer, model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecircuits.errors import UserError
from sparsecircuits.files import write_text
from sparsecircuits.interop.huggingface_files import model_config, stamp
from sparsecircuits.models.storage import TOKENIZER_SUM, build
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.runs import TOKENIZER_NAME

if TYPE_CHECKING:
    from sparsecircuits.interop.huggingface import SparseCircuitsForCausalLM


TESTED_WITH = "5.0.0, 5.12.1 and 5.24.0"
"""The versions of transformers that the tests of exported models passed with."""


def to_hf(model: SparseTransformer) -> "SparseCircuitsForCausalLM":
    """The same model as a `SparseCircuitsForCausalLM` with copies of the weights."""
    classes = _classes()
    eot = None if model.tokenizer is None else model.tokenizer.eot_id
    config = classes.SparseCircuitsConfig(**model.config.to_dict(), eos_token_id=eot, pad_token_id=eot)
    if model.tokenizer is not None:
        setattr(config, TOKENIZER_SUM, model.tokenizer.content_hash)
    config.architectures = [classes.SparseCircuitsForCausalLM.__name__]
    converted = classes.SparseCircuitsForCausalLM(config)
    converted.load_state_dict(model.state_dict())
    return converted.eval()


def from_hf(converted: "SparseCircuitsForCausalLM") -> SparseTransformer:
    """The inverse of `to_hf`."""
    state = {name: tensor.detach().cpu().clone() for name, tensor in converted.state_dict().items()}
    return build(model_config(converted.config.to_dict(), "the config"), state, "the model").eval()


def save_hf(model: SparseTransformer, directory: str | Path) -> None:
    """Write a directory that `AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)` and
    `AutoTokenizer.from_pretrained(directory)` load without this package."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    to_hf(model).save_pretrained(directory)
    stamp(directory, model.config)
    if model.tokenizer is not None:
        _save_tokenizer(model, directory)
    write_text(directory / "README.md", model_card(model))


def push_to_hub(model: SparseTransformer, repository: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload what `save_hf` writes to a Hugging Face repository (made if absent) and return its address.

    Raises UserError when the Hub refuses or cannot be reached.
    """
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_hf(model, folder)
        try:
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload sparsecircuits model")
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise UserError(f"cannot push to {repository}: {str(error).splitlines()[0]}") from error
    return str(address)


def model_card(model: SparseTransformer) -> str:
    """The README.md of an exported model: what it is, its sizes, how to use it."""
    config = model.config
    parameters, nonzeros = count_parameters(model)
    facts = {
        "layers": config.n_layer,
        "d_model": config.d_model,
        "heads": f"{config.heads} of {config.d_head}",
        "MLP neurons a layer": config.mlp_width,
        "vocabulary": config.vocab_size,
        "context": f"{config.n_ctx} tokens",
        "weights": f"{parameters:,}, of which {nonzeros:,} nonzero (1 in {parameters / max(nonzeros, 1):.0f})",
        "AbsTopK": "none" if config.afrac is None else f"keeps {config.afrac:g} at {', '.join(config.abstopk)}",
        "trained on": model.corpus or "not recorded",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [sparsecircuits, interpretability, weight-sparse]
---

# {model.name}

A weight-sparse transformer ([Gao et al. 2025](https://arxiv.org/abs/2511.13653)): almost all of its weights are
zero, so that the circuits inside it are small enough to read.

| | |
|---|---|
{rows}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("PATH", trust_remote_code=True)
ids = tokenizer("def f(x):", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=32)[0]))
```

The model code is the two Python files beside the weights; they need torch and transformers alone. Forward hooks
on modules such as `blocks.0.mlp.post_act` see the activations of circuit nodes. The tokenizer reads `<|endoftext|>`
in a text as those characters (`split_special_tokens=False` makes it the special token). A research model: it
completes small Python programs and nothing else, and it can be wrong.

Tested with transformers {TESTED_WITH}. Exports whose README lacks this line carry older code, which writes
wrong text from transformers 5.24 on: export them again.
"""


def _save_tokenizer(model: SparseTransformer, directory: Path) -> None:
    assert model.tokenizer is not None
    path = model.tokenizer.save(directory / TOKENIZER_NAME)
    _tokenizer_of(path, model).save_pretrained(directory)


def to_hf_tokenizer(model: SparseTransformer) -> Any:
    """The model's tokenizer as transformers has them. Raises UserError when the model has none."""
    import tempfile

    if model.tokenizer is None:
        raise UserError(f"{model.name} has no tokenizer")
    with tempfile.TemporaryDirectory() as folder:
        return _tokenizer_of(model.tokenizer.save(Path(folder) / TOKENIZER_NAME), model)


def _tokenizer_of(path: Path, model: SparseTransformer) -> Any:
    from transformers import PreTrainedTokenizerFast

    from sparsecircuits.data.tokenizer import END_OF_TEXT

    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=model.config.n_ctx,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # source text that spells a special token is text, as for ours
    )


def _classes() -> Any:
    try:
        from sparsecircuits.interop import huggingface
    except ImportError as error:
        raise UserError("this needs transformers: pip install 'sparsecircuits[hf]'") from error
    return huggingface
