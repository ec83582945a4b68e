"""Compile every Triton kernel for a compute capability, no GPU needed: prints each one's name and bytes of stack."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsecircuits.kernels import _triton_abstopk, _triton_held, _triton_project

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
DATA = {"x", "y", "a", "b", "out", "weight", "values", "bias", "grad"}
POINTERS = {
    "keys": "*i64", "floor_keys": "*i64", "prefix": "*i64", "room": "*i64",
    "counts": "*i32", "tie_counts": "*i32", "packed": "*i16",
    "ids": "*i64", "order": "*i64", "token_starts": "*i64", "starts": "*i64",
    "indices": "*i32", "row_of": "*i64",
}  # fmt: skip


def stack(kernel, capability: int, warps: int, data: str, **constants) -> str:
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name in DATA:
            types[name] = data
        else:
            types[name] = POINTERS.get(name) or ("fp32" if name == "log_ratio" else "i32")
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types[name].startswith("*") or name in ("n", "numel", "columns", "tokens", "outputs", "width")
    }
    source = ASTSource(kernel, types, places, aligned)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    return re.search(r"STACK:(\d+)", usage)[1]


def main(capability: int) -> None:
    topk, masked = _triton_abstopk._abstopk, _triton_abstopk._masked
    pattern = {"INFINITY": 0x7F800000, "TOP": 0x7FFFFFFF}
    block = {**pattern, "BLOCK": 4096, "FLOOR_DIM": 0}
    digits = {"SHIFT": 15, "BITS": 16, "COPIES": 32}
    project, held = _triton_project, _triton_held
    tile = {"UNITS": held._UNITS, "TOKENS": held._TOKENS}
    for name, kernel, warps, data, constants in (
        ("abstopk-bf16", topk, 1, "*bf16", {"WORDS": 128, "GRAIN": 1 << 16, "FULL": True}),
        ("abstopk-fp32", topk, 2, "*fp32", {"WORDS": 256, "GRAIN": 1, "FULL": False, "k": 1}),
        ("masked", masked, 4, "*bf16", {"WORDS": 256, "FULL": True}),
        (
            "largest-keys",
            project._largest_keys,
            4,
            "*i32",
            {**pattern, "UNITS": 32, "PLACES": 64, "unit_stride": 1, "floor": 1},
        ),
        ("count-digits", project._count_digits, 4, "*i32", {**block, **digits}),
        ("count-ties", project._count_ties, 4, "*i32", block),
        ("zero-below", project._zero_below, 4, "*i32", block),
        ("held-product-bf16", held._product, 4, "*bf16", {**tile, "HAS_BIAS": True}),
        ("held-product-fp32", held._product, 4, "*fp32", {**tile, "HAS_BIAS": False}),
        ("held-sampled", held._sampled, 4, "*bf16", tile),
        ("held-embed", held._embed, 4, "*fp32", {"BLOCK": held._TOKENS}),
        ("held-embed-gradient", held._embed_gradient, 4, "*fp32", tile),
    ):
        print(name, stack(kernel, capability, warps, data, **constants))


if __name__ == "__main__":
    main(int(sys.argv[1]))
