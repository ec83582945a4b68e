"""Every kind of damage is refused in one line, nothing is executed, and nothing loads silently wrong."""

import contextlib
import shutil
import warnings

import pytest
import torch
from damages import DAMAGES, SENTINEL, WEIGHTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from publishedfile import viz_data
from randommodels import bits, random_model
from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.extraction import edges_of, nodes_of
from sparsecircuits.circuits.schema import FoundBy
from sparsecircuits.data import Tokenizer
from sparsecircuits.interop.convert import save_model
from sparsecircuits.interop.data_gym import load_data_gym, save_data_gym
from sparsecircuits.interop.published import read_published
from sparsecircuits.models.storage import content_hash
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.models import quote_model

CONFIG = sc.ModelConfig(
    vocab_size=2048, n_ctx=12, n_layer=2, d_model=8, d_head=4, d_mlp=40, sink=True, bigram="none",
    positions="concat", d_pos_emb=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def quotes():
    return quote_model(Tokenizer.default())


@pytest.fixture(scope="module")
def good(tmp_path_factory, quotes):
    """A good folder of each kind."""
    root = tmp_path_factory.mktemp("good")
    model = random_model(CONFIG)
    model.wte.weight.data[:, 1:] = 0  # so that there is something to store sparsely
    model.tokenizer = Tokenizer.default()
    for kind, form in (("released", "openai"), ("native", "native"), ("hf", "hf")):
        save_model(model, root / kind, form)
    for name in ("vocab.bpe", "encoder.json"):  # the tokenizer has a kind of its own
        (root / "released" / name).unlink()
    save_data_gym(Tokenizer.default(), root / "tokenizer")
    (root / "published").mkdir()
    torch.save(viz_data(quotes), root / "published" / "viz_data.pt")
    space, names = NodeSpace.of(quotes.config), read_published(root / "published" / "viz_data.pt").node_names
    frozen = torch.zeros(space.size)
    circuit = Circuit(
        task="single_double_quote", answers=("')", '")'), model_name="handmade", model_id=content_hash(quotes),
        target_loss=0.15, nodes=tuple(nodes_of(names, quotes.config, space.split(frozen))),
        edges=tuple(edges_of(names, quotes)), frozen=encode_frozen(space, frozen),
    )  # fmt: skip
    circuit.save(root / "circuit" / "circuit.json")
    return root


def load(kind, folder, quotes):
    """Read a folder as its user would, as far as the first use."""
    if kind == "tokenizer":
        return load_data_gym(folder)
    if kind == "published":
        return read_published(folder / "viz_data.pt")
    if kind == "circuit":
        circuit = Circuit.load(folder / "circuit.json")
        circuit.check_model(quotes)
        circuit.gating(quotes)
        return circuit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sc.load_model(folder)


def assert_refused(kind, folder, quotes):
    with pytest.raises(sc.UserError) as refused:
        load(kind, folder, quotes)
    said = str(refused.value)
    assert said
    assert "\n" not in said, said
    assert len(said) < 600, said
    assert "weights_only" not in said  # torch's advice on how to run what a file contains
    assert not (folder.parent / SENTINEL).exists()


@pytest.mark.parametrize("kind", sorted(WEIGHTS))
def test_undamaged_folders_load(kind, good, quotes):
    load(kind, good / kind, quotes)


def test_there_are_many_kinds_of_damage():
    assert len({name for _, name in DAMAGES}) >= 50
    assert len(DAMAGES) >= 300


@pytest.mark.parametrize(("kind", "name"), sorted(DAMAGES))
def test_damage_is_refused(kind, name, good, quotes, tmp_path):
    folder = tmp_path / kind
    shutil.copytree(good / kind, folder)
    DAMAGES[kind, name](folder)
    assert_refused(kind, folder, quotes)


def same(kind, loaded, expected):
    if kind in ("published", "circuit"):  # all but where the file was
        return loaded.model_copy(update={"found_by": FoundBy()}) == expected.model_copy(update={"found_by": FoundBy()})
    if kind == "tokenizer":
        return loaded.content_hash == expected.content_hash
    state, wanted = loaded.state_dict(), expected.state_dict()
    equal = all(torch.equal(bits(state[name]), bits(tensor)) for name, tensor in wanted.items())
    return equal and loaded.config == expected.config


@pytest.mark.parametrize("kind", ["released", "native", "hf", "published", "tokenizer"])
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_are_refused_or_change_nothing(kind, data, good, quotes, tmp_path_factory):
    whole = (good / kind / WEIGHTS[kind]).read_bytes()
    expected = load(kind, good / kind, quotes)
    folder = tmp_path_factory.mktemp("flipped") / kind
    shutil.copytree(good / kind, folder)
    places = st.integers(0, len(whole) - 1) | st.integers(0, 2000) | st.integers(len(whole) - 2000, len(whole) - 1)
    broken = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4)):
        broken[place % len(whole)] ^= value
    (folder / WEIGHTS[kind]).write_bytes(broken)
    with contextlib.suppress(sc.UserError):  # anything else fails the test
        assert same(kind, load(kind, folder, quotes), expected)


@pytest.mark.parametrize("kind", sorted(WEIGHTS))
@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_files_are_refused_or_change_nothing(kind, share, good, quotes, tmp_path_factory):
    whole = (good / kind / WEIGHTS[kind]).read_bytes()
    expected = load(kind, good / kind, quotes)
    folder = tmp_path_factory.mktemp("cut") / kind
    shutil.copytree(good / kind, folder)
    (folder / WEIGHTS[kind]).write_bytes(whole[: int(share * len(whole))])
    with contextlib.suppress(sc.UserError):
        assert same(kind, load(kind, folder, quotes), expected)
