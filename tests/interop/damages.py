"""Kinds of damage to files that the package reads: each a function that damages a good folder in place."""

import base64
import builtins
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparsecircuits.models.storage import CHECKSUM

Damage = Callable[[Path], None]
DAMAGES: dict[tuple[str, str], Damage] = {}
"""(kind of folder, name of the damage) -> what does it. Kinds: released, native, hf, tokenizer, circuit, published."""

WEIGHTS = {"released": "final_model.pt", "native": "model.safetensors", "hf": "model.safetensors"}
WEIGHTS |= {"published": "viz_data.pt", "circuit": "circuit.json", "tokenizer": "vocab.bpe"}
CONFIGS = {"released": "beeg_config.json", "native": "config.json", "hf": "config.json"}
SENTINEL = "executed"


def damage(*kinds: str) -> Callable[[Damage], Damage]:
    """Register a damage under its function's name for some kinds of folder."""

    def register(function: Damage) -> Damage:
        for kind in kinds:
            assert (kind, function.__name__) not in DAMAGES
            DAMAGES[kind, function.__name__] = function
        return function

    return register


def add(kind: str, name: str, function: Damage) -> None:
    assert (kind, name) not in DAMAGES
    DAMAGES[kind, name] = function


def quiet(_result: object) -> None:
    """Drop what an expression gave."""


# ---------------------------------------------------------------- bytes of any file


def on_bytes(kind: str, name: str, change: Callable[[bytes], bytes]) -> None:
    def apply(folder: Path) -> None:
        path = folder / WEIGHTS[kind]
        path.write_bytes(change(path.read_bytes()))

    add(kind, name, apply)


for _kind in WEIGHTS:
    on_bytes(_kind, "empty", lambda whole: b"")
    on_bytes(_kind, "one_byte", lambda whole: whole[:1])
    on_bytes(_kind, "first_half", lambda whole: whole[: len(whole) // 2])
    on_bytes(_kind, "zeros_of_the_same_length", lambda whole: bytes(len(whole)))
    on_bytes(_kind, "a_web_page_instead", lambda whole: b"<html><body>404 not found</body></html>")
    on_bytes(_kind, "not_utf8", lambda whole: b"\xff\xfe\x00" + whole)
    if _kind not in ("circuit", "tokenizer"):
        on_bytes(_kind, "last_byte_missing", lambda whole: whole[:-1])
        on_bytes(_kind, "a_byte_flipped_in_the_middle", lambda w: w[: len(w) // 2] + flipped(w[len(w) // 2 :]))


def flipped(part: bytes) -> bytes:
    return bytes([part[0] ^ 0x41]) + part[1:]


@damage(*WEIGHTS)
def missing(folder: Path) -> None:
    for name in set(WEIGHTS.values()):
        if (folder / name).exists() and name != "vocab.bpe":
            (folder / name).unlink()
    (folder / "encoder.json").unlink(missing_ok=True)


@damage(*WEIGHTS)
def a_folder_in_its_place(folder: Path) -> None:
    path = next(folder / name for name in WEIGHTS.values() if (folder / name).exists())
    path.unlink()
    path.mkdir()


# ---------------------------------------------------------------- malicious pickles


def call(module: str, name: str, argument: str, proto: int = 2) -> bytes:
    """A pickle that calls module.name(argument)."""
    head = b"\x80" + bytes([proto])
    if proto >= 4:
        start = b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93"
    else:
        start = f"c{module}\n{name}\n".encode()
    return head + start + b"X" + struct.pack("<I", len(argument)) + argument.encode() + b"\x85R."


def inst(module: str, name: str, argument: str) -> bytes:
    """The same with the opcode INST of protocol 0."""
    return f"(S{argument!r}\ni{module}\n{name}\n.".encode()


def obj(module: str, name: str, argument: str) -> bytes:
    """The same with the opcode OBJ of protocol 1."""
    return f"(c{module}\n{name}\nS{argument!r}\no.".encode()


def build(module: str, name: str) -> bytes:
    """A pickle that sets the state of an allowed object to something foreign."""
    return b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00a" + f"c{module}\n{name}\n".encode() + b"sb."


PICKLES: dict[str, Callable[[str], bytes]] = {
    "os_mkdir": lambda path: call("os", "mkdir", path),
    "posix_mkdir": lambda path: call("posix", "mkdir", path),
    "os_system": lambda path: call("os", "system", f"touch {path}"),
    "subprocess": lambda path: call("subprocess", "getoutput", f"touch {path}"),
    "eval": lambda path: call("builtins", "eval", f"__import__('os').mkdir({path!r})"),
    "exec_of_python_2": lambda path: call("__builtin__", "exec", f"import os; os.mkdir({path!r})"),
    "stack_global": lambda path: call("builtins", "exec", f"import os; os.mkdir({path!r})", 4),
    "inst": lambda path: inst("os", "mkdir", path),
    "obj": lambda path: obj("os", "mkdir", path),
    "build": lambda path: build("os", "mkdir"),
    "pathlib": lambda path: call("pathlib", "PosixPath", path),
    "nested_pickle": lambda path: call("pickle", "loads", path),
    "torch_load": lambda path: call("torch.serialization", "load", path),
    "torch_hub": lambda path: call("torch.hub", "load", path),
    "dotted_global": lambda path: call("torch", "_utils.os.mkdir", path),
    "numpy_load": lambda path: call("numpy", "load", path),
    "getattr": lambda path: call("builtins", "getattr", path),
    "importlib": lambda path: call("importlib", "import_module", "this"),
    "our_own_code": lambda path: call("sparsecircuits.files", "write_text", path),
}


def in_archive(path: Path, data: bytes) -> None:
    """A file as `torch.save` lays it out, whose pickle is `data`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")


def _malicious(kind: str, name: str, make: Callable[[str], bytes], archived: bool) -> None:
    def apply(folder: Path) -> None:
        data, path = make(str(folder.parent / SENTINEL)), folder / WEIGHTS[kind]
        if archived:
            in_archive(path, data)
        else:
            path.write_bytes(data)

    add(kind, f"pickle_{name}_{'zip' if archived else 'raw'}", apply)


for _name, _make in PICKLES.items():
    _malicious("released", _name, _make, archived=True)
    _malicious("published", _name, _make, archived=True)
    _malicious("released", _name, _make, archived=False)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


@damage("released", "published")
def an_object_among_the_tensors(folder: Path) -> None:
    path = next(folder / name for name in WEIGHTS.values() if (folder / name).exists())
    content = torch.load(path, weights_only=True)
    torch.save({**content, "more": Bomb(folder.parent / SENTINEL)}, path)


@damage("released", "published")
def a_script_module_instead(folder: Path) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path = next(folder / name for name in WEIGHTS.values() if (folder / name).exists())
    with builtins.open(path, "wb") as file:
        torch.jit.save(torch.jit.trace(Module(), torch.zeros(1)), file)


@damage("native", "hf", "circuit")
def a_pickle_instead(folder: Path) -> None:
    path = next(folder / name for name in WEIGHTS.values() if (folder / name).exists())
    path.write_bytes(pickle.dumps(Bomb(folder.parent / SENTINEL)))


# ---------------------------------------------------------------- tensors of a released model


def on_state(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    def apply(folder: Path) -> None:
        path = folder / "final_model.pt"
        state = torch.load(path, weights_only=True)
        changed = change(state)
        torch.save(state if changed is None else changed, path)

    add("released", name, apply)


FC, WTE = "transformer.h.0.mlp.c_fc.weight", "transformer.wte.weight"


def put(key: str, value: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key: value(state[key])})


def with_entry(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[3] = value
    return tensor


on_state("nan_weight", put(FC, lambda t: with_entry(t, float("nan"))))
on_state("inf_weight", put(FC, lambda t: with_entry(t, float("inf"))))
on_state("minus_inf_sink", put("transformer.h.1.attn.attn_imp.sink_logit", lambda t: t - float("inf")))
on_state("double_beyond_float", put(FC, lambda t: with_entry(t.double(), 1e300)))
on_state("transposed", put(FC, lambda t: t.T.contiguous()))
on_state("flattened", put(FC, lambda t: t.flatten()))
on_state("one_row_short", put(WTE, lambda t: t[:-1].clone()))
on_state("integers", put(FC, lambda t: t.int()))
on_state("complex_numbers", put(FC, lambda t: t.to(torch.complex64)))
on_state("truth_values", put(FC, lambda t: t != 0))
on_state("sparse_layout", put(FC, lambda t: t.to_sparse()))
on_state("one_number_repeated", put(FC, lambda t: torch.zeros(1, 1).expand(t.shape)))
on_state("a_text", put(FC, lambda t: "weights"))
on_state("a_list_of_numbers", put(FC, lambda t: t.tolist()))
on_state("a_tensor_missing", lambda state: {k: t for k, t in state.items() if k != FC})
on_state("a_layer_missing", lambda state: {k: t for k, t in state.items() if ".h.1." not in k})
on_state("a_layer_too_many", lambda state: {**state, FC.replace(".0.", ".2."): state[FC]})
on_state("a_tensor_of_another_name", lambda state: {**state, "transformer.extra.weight": torch.zeros(2)})
on_state("a_number_as_name", lambda state: {**state, 3: torch.zeros(2)})
on_state("only_a_tensor", lambda state: state[WTE])
on_state("a_list", lambda state: list(state.values()))
on_state("nothing_in_it", lambda state: {})
on_state("wrapped_in_another_level", lambda state: {"state_dict": state})


@damage("released")
def checksum_of_a_record_wrong(folder: Path) -> None:
    path = folder / "final_model.pt"
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda info: info.file_size)
    whole[record.header_offset + 30 + len(record.filename) + 200] ^= 0xFF
    path.write_bytes(whole)


@damage("released")
def a_record_that_leaves_the_archive(folder: Path) -> None:
    path = folder / "final_model.pt"
    with zipfile.ZipFile(path) as archive:
        data = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("../" + SENTINEL, b"x")
        archive.writestr("archive/../../" + SENTINEL, b"x")
        archive.writestr("archive/version", b"3\n")


@damage("released")
def claims_a_storage_of_terabytes(folder: Path) -> None:
    path = folder / "final_model.pt"
    torch.save({WTE: torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            if name.endswith("data.pkl"):  # the two ones: elements of the storage, size of the tensor
                part = part.replace(b"K\x01", b"\x8a\x06\x00\x00\x00\x00\x00\x10")
            archive.writestr(name, part)


# ---------------------------------------------------------------- configs of models


def on_config(kind: str, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    def apply(folder: Path) -> None:
        path = folder / CONFIGS[kind]
        raw = json.loads(path.read_text())
        inner = raw["model"] if kind == "native" else raw
        changed = change(inner)
        path.write_text(json.dumps(raw if changed is None else changed))

    add(kind, name, apply)


def set_to(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update({key: value})


_SIZES: dict[str, list[Any]] = {
    "n_layer": [0, -1, 1, 3, 10**9, "2", 2.0, True, None],
    "n_head": [0, -2, 3, 10**12, "two", [2]],
    "d_model": [0, -8, 4, 10**15, "8", None],
    "d_head": [0, -1, 3, 2**40, "4"],
    "vocab_size": [0, -1, 17, 2**62, 10**30, "2048", None],
    "d_mlp": [0, -1, 5, 2**50, "40"],
    "d_pos_emb": [0, -2, 3, 2**40, "4", None],
}
for _key, _values in _SIZES.items():
    for _value in _values:
        for _kind in CONFIGS:
            if not (_value is None and (_key, _kind) == ("d_pos_emb", "released")):
                on_config(_kind, f"{_key}_is_{_value!r}", set_to(_key, _value))

for _kind in CONFIGS:
    on_config(_kind, "afrac_is_2", set_to("afrac", 2.0))
    on_config(_kind, "afrac_is_nan", set_to("afrac", float("nan")))
    on_config(_kind, "afrac_is_a_text", set_to("afrac", "0.25"))
    on_config(_kind, "sink_is_off", set_to("sink", False))
    on_config(_kind, "sink_is_a_text", set_to("sink", "yes"))
    on_config(_kind, "ties_what_differs", set_to("tied_unembed", True))
    on_config(_kind, "bias_is_off", set_to("bias", False))
    on_config(_kind, "is_a_list", lambda config: [config])
    on_config(_kind, "is_a_number", lambda config: 3)
    on_config(_kind, "is_empty", lambda config: {})
for _key, _value in {
    "activation_type": "swish",
    "residual_activation_type": "tanh",
    "afrac_loctypes": "attn_in,mlp_sideways",
    "block_size": 13,
    "rms_norm": "true",
    "enable_bigram_table": 1,
    "learnable_bigram_table": "no",
    "sinusoidal_cat_pos_emb": [],
    "use_tied_aux_matrix": True,
    "ln_bias": 3,
}.items():
    on_config("released", f"{_key}_is_{_value!r}", set_to(_key, _value))
for _kind in ("native", "hf"):
    for _key, _value in {
        "norm": "batch",
        "activation": "swish",
        "residual_activation": None,
        "positions": "rotary",
        "bigram": "sparse",
        "abstopk": ["everywhere"],
        "n_ctx": 13,
        "afrac": 0.125,
        "position_norm": "layer",
    }.items():
        on_config(_kind, f"{_key}_is_{_value!r}", set_to(_key, _value))
on_config("native", "unknown_key", set_to("depth", 3))
on_config("hf", "another_model_type", set_to("model_type", "llama"))


@damage("released", "native", "hf", "circuit")
def a_key_twice(folder: Path) -> None:
    name = next(name for name in (*CONFIGS.values(), "circuit.json") if (folder / name).exists())
    text = (folder / name).read_text()
    for key, other in (("d_model", '"d_model": 8, '), ("task", '"task": "for_while", ')):
        text = text.replace(f'"{key}":', f'{other}"{key}":', 1)
    (folder / name).write_text(text)


@damage("released", "native", "hf", "circuit")
def json_nested_too_deeply(folder: Path) -> None:
    name = next(name for name in (*CONFIGS.values(), "circuit.json") if (folder / name).exists())
    (folder / name).write_text("[" * 200_000)


@damage("released", "native", "hf", "circuit")
def json_with_a_number_of_a_million_digits(folder: Path) -> None:
    name = next(name for name in (*CONFIGS.values(), "circuit.json") if (folder / name).exists())
    (folder / name).write_text('{"d_model": ' + "9" * 1_000_000 + "}")


@damage("released", "native", "hf")
def config_missing(folder: Path) -> None:
    next(folder / name for name in CONFIGS.values() if (folder / name).exists()).unlink()


# ---------------------------------------------------------------- safetensors


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]


def write_header(path: Path, header: Any, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def on_header(kind: str, name: str, change: Callable[[dict[str, Any], bytes], Any]) -> None:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        header, data = read_header(path)
        changed = change(header, data)
        write_header(path, *(changed if isinstance(changed, tuple) else (header, data)))

    add(kind, name, apply)


def first(header: dict[str, Any]) -> dict[str, Any]:
    return next(header[name] for name in sorted(header) if name != "__metadata__")


def _header_twice(header: dict[str, Any], data: bytes) -> tuple[bytes, bytes]:
    text = json.dumps(header)
    name = next(name for name in sorted(header) if name != "__metadata__")
    return (text[:-1] + f', "{name}": {json.dumps(header[name])}' + "}").encode(), data


for _kind in ("native", "hf"):
    on_bytes(_kind, "header_of_exabytes", lambda whole: struct.pack("<Q", 2**62) + whole[8:])
    on_bytes(_kind, "header_beyond_the_file", lambda whole: struct.pack("<Q", len(whole) * 2) + whole[8:])
    on_header(_kind, "header_is_a_list", lambda header, data: (b"[]", data))
    on_header(_kind, "header_is_empty", lambda header, data: ({}, b""))
    on_header(_kind, "offsets_beyond_the_end", lambda h, d: first(h).update(data_offsets=[0, len(d) + 4]))
    on_header(_kind, "offsets_reversed", lambda h, d: first(h)["data_offsets"].reverse())
    on_header(_kind, "offsets_negative", lambda h, d: first(h).update(data_offsets=[-4, 0]))
    on_header(_kind, "shape_of_exabytes", lambda h, d: first(h).update(shape=[2**40, 2**40]))
    on_header(_kind, "shape_negative", lambda h, d: first(h).update(shape=[-1]))
    on_header(_kind, "type_unknown", lambda h, d: first(h).update(dtype="F31"))
    on_header(_kind, "bytes_left_over", lambda h, d: (h, d + b"more"))
    on_header(_kind, "name_twice", _header_twice)
    on_header(_kind, "checksum_of_other_tensors", lambda h, d: h["__metadata__"].update({CHECKSUM: "0" * 64}))


def on_packed(name: str, change: Callable[[dict[str, torch.Tensor], dict[str, list[int]]], None]) -> None:
    """Change what a native file stores, with a checksum that fits: made by a hand that knows the format."""

    def apply(folder: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        from sparsecircuits.models.storage import checksum

        path = folder / "model.safetensors"
        with safe_open(path, "pt") as file:
            metadata, packed = dict(file.metadata()), {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
        shapes = json.loads(metadata["sparse_shapes"])
        change(packed, shapes)
        metadata |= {"sparse_shapes": json.dumps(shapes), CHECKSUM: checksum(packed)}
        save_file(packed, path, metadata=metadata)

    add("native", f"sparse_{name}", apply)


SPARSE = "wte.weight"
VALUES, INDICES = f"{SPARSE}.values", f"{SPARSE}.indices"


def entry(position: int, value: int) -> Callable[[dict[str, torch.Tensor], dict[str, list[int]]], None]:
    return lambda packed, shapes: packed[INDICES].__setitem__(position, value)


on_packed("index_beyond_the_shape", entry(-1, 2**31 - 1))
on_packed("index_negative", entry(0, -1))
on_packed("index_twice", lambda p, s: p[INDICES].__setitem__(1, int(p[INDICES][0])))
on_packed("indices_unsorted", lambda p, s: p.update({INDICES: p[INDICES].flip(0).contiguous()}))
on_packed("index_missing", lambda p, s: p.update({INDICES: p[INDICES][:-1].clone()}))
on_packed("indices_absent", lambda p, s: quiet(p.pop(INDICES)))
on_packed("values_absent", lambda p, s: quiet(p.pop(VALUES)))
on_packed("indices_are_floats", lambda p, s: p.update({INDICES: p[INDICES].float()}))
on_packed("indices_are_truth_values", lambda p, s: p.update({INDICES: p[INDICES] > 3}))
on_packed("indices_of_two_dimensions", lambda p, s: p.update({INDICES: p[INDICES][None].clone()}))
on_packed("value_nan", lambda p, s: p[VALUES].__setitem__(0, float("nan")))
on_packed("value_inf", lambda p, s: p[VALUES].__setitem__(0, float("inf")))
on_packed("values_are_integers", lambda p, s: p.update({VALUES: p[VALUES].int()}))
on_packed("shape_too_large_for_memory", lambda p, s: s.update({SPARSE: [2**16, 2**17]}))
on_packed("shape_of_exabytes", lambda p, s: s.update({SPARSE: [2**30, 2**30]}))
on_packed("shape_with_a_zero", lambda p, s: s.update({SPARSE: [0, 8]}))
on_packed("shape_negative", lambda p, s: s.update({SPARSE: [-2048, -8]}))
on_packed("shape_transposed", lambda p, s: s.update({SPARSE: s[SPARSE][::-1]}))
on_packed("shape_absent", lambda p, s: quiet(s.pop(SPARSE)))
on_packed("shape_a_text", lambda p, s: s.update({SPARSE: "2048"}))
on_packed("shape_of_nothing_stored", lambda p, s: s.update({"ghost": [4, 4]}))
on_packed("stored_densely_too", lambda p, s: p.update({SPARSE: torch.zeros(s[SPARSE])}))


@damage("native")
def weights_of_another_run(folder: Path) -> None:
    """Same sizes, another architecture: only the header knows."""
    from sparsecircuits.models.config import ModelConfig
    from sparsecircuits.models.storage import write_config

    raw = json.loads((folder / "config.json").read_text())["model"]
    write_config(ModelConfig.from_dict({**raw, "activation": "relu"}), folder)


@damage("native")
def released_weights_under_a_native_name(folder: Path) -> None:
    torch.save({"a": torch.zeros(2)}, folder / "model.safetensors")


@damage("native")
def another_formats_header(folder: Path) -> None:
    header, data = read_header(folder / "model.safetensors")
    header["__metadata__"]["format"] = "sparsecircuits-99"
    write_header(folder / "model.safetensors", header, data)


def on_index(name: str, content: Any) -> None:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "model.safetensors.index.json").write_text(text)

    add("hf", name, apply)


on_index("index_path_upwards", {"weight_map": {"wte.weight": "../other.safetensors"}})
on_index("index_path_absolute", {"weight_map": {"wte.weight": "/etc/passwd"}})
on_index("index_path_through_a_folder", {"weight_map": {"wte.weight": "x/../other.safetensors"}})
on_index("index_path_of_a_pickle", {"weight_map": {"wte.weight": "other.bin"}})
on_index("index_path_a_number", {"weight_map": {"wte.weight": 3}})
on_index("index_path_absent", {"weight_map": {"wte.weight": "nowhere.safetensors"}})
on_index("index_is_a_list", [])
on_index("index_is_no_json", "{")
on_index("index_has_no_map", {"metadata": {}})


# ---------------------------------------------------------------- tokenizer files


def on_vocabulary(name: str, change: Callable[[dict[str, int]], Any]) -> None:
    def apply(folder: Path) -> None:
        vocabulary = json.loads((folder / "encoder.json").read_text())
        changed = change(vocabulary)
        (folder / "encoder.json").write_text(json.dumps(vocabulary if changed is None else changed))

    add("tokenizer", name, apply)


on_vocabulary("two_tokens_of_one_id", lambda v: v.update({"!": 1}))
on_vocabulary("ids_shifted", lambda v: {token: i + 1 for token, i in v.items()})
on_vocabulary("id_negative", lambda v: v.update({"!": -1}))
on_vocabulary("id_a_text", lambda v: v.update({"!": "0"}))
on_vocabulary("id_a_truth_value", lambda v: v.update({'"': True}))
on_vocabulary("token_missing", lambda v: quiet(v.pop("A")))
on_vocabulary("token_too_many", lambda v: v.update({"zqzq": 2048}))
on_vocabulary("end_of_text_elsewhere", lambda v: v.update({"<|endoftext|>": 5}))
on_vocabulary("vocabulary_a_list", lambda v: list(v))


def on_merges(name: str, change: Callable[[list[str]], list[str]]) -> None:
    def apply(folder: Path) -> None:
        lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
        (folder / "vocab.bpe").write_text("\n".join(change(lines)), encoding="utf-8")

    add("tokenizer", name, apply)


on_merges("merges_swapped", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
on_merges("merge_twice", lambda lines: [*lines[:-1], lines[1], ""])
on_merges("merge_missing", lambda lines: [*lines[:5], *lines[6:]])
on_merges("merge_of_three", lambda lines: [*lines[:5], "a b c", *lines[6:]])
on_merges("merge_of_one", lambda lines: [*lines[:5], "a", *lines[6:]])
on_merges("merge_of_the_unknown", lambda lines: [*lines[:-1], "zq qz", ""])
on_merges("no_version_line", lambda lines: lines[1:])


def on_tokenizer(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Damage `tokenizer.json` beside a model, which is refused by itself or by the hash in config.json."""

    def apply(folder: Path) -> None:
        raw = json.loads((folder / "tokenizer.json").read_text())
        change(raw)
        (folder / "tokenizer.json").write_text(json.dumps(raw))

    for kind in ("native", "hf"):
        add(kind, f"a_tokenizer_{name}", apply)


def more_tokens(raw: dict[str, Any]) -> None:
    raw["added_tokens"].append({**raw["added_tokens"][0], "id": 2048, "content": "<|more|>"})


def no_end_of_text(raw: dict[str, Any]) -> None:
    raw["added_tokens"] = []
    raw["model"]["vocab"].pop("<|endoftext|>", None)


on_tokenizer("of_more_tokens", more_tokens)
on_tokenizer("without_end_of_text", no_end_of_text)
on_tokenizer("that_pads", lambda raw: raw.update(padding={"strategy": {"Fixed": 9}, "pad_id": 0, "pad_token": "!"}))
on_tokenizer("that_normalizes", lambda raw: raw.update(normalizer={"type": "Lowercase"}))
on_tokenizer("that_splits_nothing", lambda raw: raw.update(pre_tokenizer=None))
on_tokenizer("of_two_ids_swapped", lambda raw: raw["model"]["vocab"].update({"!": 1, '"': 0}))
on_tokenizer("of_one_merge_less", lambda raw: quiet(raw["model"]["merges"].pop()))
on_tokenizer("of_merges_swapped", lambda raw: raw["model"]["merges"].reverse())


@damage("native", "hf")
def a_tokenizer_that_is_none(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "Magic"}}')


@damage("native", "hf")
def a_tokenizer_cut_short(folder: Path) -> None:
    whole = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(whole[: len(whole) // 2])


@damage("native")
def a_tokenizer_gone(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


# ---------------------------------------------------------------- circuits


NANS = struct.pack("<16f", *[float("nan")] * 16)


def on_circuit(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    def apply(folder: Path) -> None:
        raw = json.loads((folder / "circuit.json").read_text())
        raw.pop("checksum")  # what is damaged is found without it
        changed = change(raw)
        (folder / "circuit.json").write_text(json.dumps(raw if changed is None else changed))

    add("circuit", name, apply)


def node(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change a node; the edges go when its name does, so that it is the node that is wrong."""

    def change(raw: dict[str, Any]) -> None:
        raw["nodes"][0].update(changes)
        raw["edges"] = [] if "name" in changes else raw["edges"]

    return change


on_circuit("schema_of_tomorrow", lambda c: c.update(schema_version=2))
on_circuit("unknown_field", lambda c: c.update(extra=1))
on_circuit("no_nodes_field", lambda c: quiet(c.pop("nodes")))
on_circuit("one_answer", lambda c: c.update(answers=["')"]))
on_circuit("nan_target", lambda c: c.update(target_loss=float("nan")))
on_circuit("inf_weight", lambda c: c["edges"][0].update(weight=float("inf")))
on_circuit("unknown_ablation", lambda c: c.update(ablation="median"))
on_circuit("of_another_model", lambda c: c.update(model_id="0" * 32))
on_circuit("node_index_negative", node(name="0.attn.act_in.-1", index=-1))
on_circuit("node_index_too_large", node(name="0.attn.act_in.999", index=999))
on_circuit("node_of_no_layer", node(name="7.attn.act_in.0", layer=7))
on_circuit("node_of_no_site", node(name="0.attn.soul.0", site="attn.soul"))
on_circuit("node_name_and_index_differ", node(index=3))
on_circuit("node_name_and_site_differ", node(site="mlp.act_in"))
on_circuit("node_twice", lambda c: c["nodes"].append(c["nodes"][0]))
on_circuit("edge_twice", lambda c: c["edges"].append(c["edges"][0]))
on_circuit("edge_to_no_node", lambda c: c["edges"][0].update(target="0.mlp.post_act.31"))
on_circuit("edge_without_weight_in_the_model", lambda c: c["edges"][0].update(target="0.mlp.post_act.5"))
on_circuit("edge_of_another_weight", lambda c: c["edges"][0].update(weight=c["edges"][0]["weight"] + 0.01))
on_circuit("mean_that_is_not_the_frozen_value", node(mean=0.5))
on_circuit("wrong_checksum", lambda c: c.update(checksum="0" * 64))
on_circuit("head_elsewhere", node(name="0.attn.v.5", site="attn.v", index=5, head=0))
on_circuit("frozen_values_missing", lambda c: quiet(c["frozen"].pop("0.attn.q")))
on_circuit("frozen_values_too_few", lambda c: c["frozen"].update({"0.attn.q": "AAAAAA=="}))
on_circuit("frozen_values_no_base64", lambda c: c["frozen"].update({"0.attn.q": "*" * 88}))
on_circuit("frozen_values_nan", lambda c: c["frozen"].update({"0.attn.q": base64.b64encode(NANS).decode()}))
on_circuit("is_a_list", lambda c: [c])
on_circuit("nodes_are_texts", lambda c: c.update(nodes=["0.attn.q.1"]))


# ---------------------------------------------------------------- published circuits


def on_viz(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    def apply(folder: Path) -> None:
        content = torch.load(folder / "viz_data.pt", weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, folder / "viz_data.pt")

    add("published", name, apply)


KEPT, PAIRS = "circuit_data", "pair_data"


def kept(site: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda c: c[KEPT].update({site: value})


def pair(place: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda c: c["importances"][PAIRS][0].__setitem__(place, value)


def inside(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda c: c["importances"].update({key: value})


on_viz("nothing_in_it", lambda c: {})
on_viz("a_list", lambda c: [c])
on_viz("no_circuit_data", lambda c: quiet(c.pop(KEPT)))
on_viz("no_config", lambda c: quiet(c["importances"].pop("beeg_model_config")))
on_viz("no_node_kept", lambda c: c.update({KEPT: {site: torch.zeros(0, dtype=torch.long) for site in c[KEPT]}}))
on_viz("channel_too_large", kept("0.attn.q", torch.tensor([16])))
on_viz("channel_negative", kept("0.attn.q", torch.tensor([-1])))
on_viz("channel_twice", kept("0.attn.q", torch.tensor([3, 3])))
on_viz("channels_are_floats", kept("0.attn.q", torch.tensor([1.5])))
on_viz("channels_are_a_matrix", kept("0.attn.q", torch.zeros(2, 2, dtype=torch.long)))
on_viz("channels_without_end", kept("0.attn.q", torch.zeros(1, dtype=torch.long).expand(10**12)))
on_viz("mask_of_another_width", kept("0.attn.q", torch.ones(17, dtype=torch.bool)))
on_viz("channels_are_a_text", kept("0.attn.q", "all"))
on_viz("site_of_no_layer", kept("5.attn.q", torch.tensor([1])))
on_viz("site_unknown", kept("0.attn.soul", torch.tensor([1])))
on_viz("site_with_a_path", kept("../0.attn.q", torch.tensor([1])))
on_viz("site_a_number", kept(3, torch.tensor([1])))  # type: ignore[arg-type]
on_viz("losses_too_few", lambda c: c["importances"]["ch_interv_losses"].update({"0.attn.v": []}))
on_viz("losses_missing", lambda c: quiet(c["importances"]["ch_interv_losses"].pop("0.attn.v")))
on_viz("losses_nan", lambda c: c["importances"]["ch_interv_losses"].update({"0.attn.v": [float("nan")]}))
on_viz("losses_without_base", lambda c: quiet(c["importances"].pop("interv_loss")))
on_viz("loss_inf", inside("interv_loss", torch.tensor(float("inf"))))
on_viz("loss_a_text", inside("loss", "small"))
on_viz("importances_a_list", lambda c: c.update(importances=[]))
on_viz("pairs_a_number", inside(PAIRS, 3))
on_viz("pair_of_three_parts", lambda c: c["importances"][PAIRS].__setitem__(0, [torch.zeros(1, 1), [0], [0]]))
on_viz("pair_matrix_transposed", pair(0, torch.ones(1, 2)))
on_viz("pair_matrix_nan", pair(0, torch.full((1, 1), float("nan"))))
on_viz("pair_matrix_sparse", pair(0, torch.ones(1, 1).to_sparse()))
on_viz("pair_source_not_kept", pair(1, [7]))
on_viz("pair_target_not_kept", pair(2, [7]))
on_viz("pair_of_one_location", pair(3, ["0.attn.v"]))
on_viz("pair_of_an_unknown_location", pair(3, ["0.attn.v", "0.attn.soul"]))
on_viz("pair_twice", lambda c: c["importances"][PAIRS].append(c["importances"][PAIRS][0]))
on_viz("config_of_another_width", lambda c: c["importances"]["beeg_model_config"].update(d_mlp=4))
on_viz("config_of_no_sense", lambda c: c["importances"]["beeg_model_config"].update(n_head="many"))
on_viz("config_key_a_number", lambda c: c["importances"]["beeg_model_config"].update({3: 4}))
on_viz("total_nan", lambda c: c.update(num_total_nodes=float("nan")))
