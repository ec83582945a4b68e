"""A little of a corpus is text of the corpus, held out from training, without the corpus being made."""

import numpy as np
import pytest

from sparsecircuits.data import Tokenizer, prepare_tokens
from sparsecircuits.data.excerpt import excerpt
from sparsecircuits.data.tinypython import generate_files
from sparsecircuits.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("code")
    for i, file in enumerate(generate_files(60, seed=9)):
        (root / f"file_{i}.py").write_text(f"# folder\n{file.text}")
    (root / "broken.py").write_text("def (")
    return root


def _documents(ids, tokenizer):
    starts = np.flatnonzero(np.asarray(ids) == tokenizer.eot_id)
    return {tokenizer.decode(part[1:].tolist()) for part in np.split(np.asarray(ids), starts)[1:]}


def test_it_is_what_validation_measures_on(folder):
    tokenizer = Tokenizer.default()
    spec = f"{folder}+tinypython:80"
    held = _documents(prepare_tokens(spec, tokenizer).val, tokenizer)
    few = _documents(excerpt(spec, tokenizer, 400), tokenizer)
    assert len(few) >= 2
    assert few <= held
    everything = _documents(excerpt(str(folder), tokenizer, 10**9), tokenizer)
    assert len(everything) == 60


def test_sources_have_their_shares(folder):
    tokenizer = Tokenizer.default()
    ids = excerpt(f"0.25*{folder}+0.75*drills:30000", tokenizer, 20_000)
    assert 20_000 <= len(ids) < 30_000
    ours = sum(len(tokenizer.encode(text)) for text in _documents(ids, tokenizer) if text.startswith("# folder"))
    assert ours / len(ids) < 0.5


def test_what_is_not_there_is_told():
    with pytest.raises(UserError):
        excerpt("no-such-corpus", Tokenizer.default(), 100)
