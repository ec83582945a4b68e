"""The commands that act on models through circuits: `bridge`, `steer` and `edit`."""

import json
from typing import TYPE_CHECKING

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.checks import check_paths
from sparsecircuits.cli.corpus import text_of
from sparsecircuits.cli.show import print_json, print_table, print_text, progress
from sparsecircuits.errors import UserError
from sparsecircuits.training.config import preset

if TYPE_CHECKING:
    from sparsecircuits.bridges.measures import BoundaryRow


def edit(command: args.Edit) -> None:
    """Surgery on a model, with its audit."""
    from sparsecircuits.bridges.edited import circuits_of, edit_into
    from sparsecircuits.interop.loading import load_model

    check_paths(models=[command.model], data=command.data, out=[command.out])
    model = load_model(command.model)
    remove, keep, spare = (circuits_of(command.model, g, model) for g in (command.remove, command.keep, command.spare))
    # A folder of circuits to spare may hold those to remove.
    spare = [circuit for circuit in spare if circuit not in remove]
    _, tokens = text_of(model, command.data)
    with progress("audit   ") as update:
        found = edit_into(
            model,
            command.out,
            tokens.val,
            remove=remove,
            keep=keep,
            spare=spare,
            n_pairs=command.pairs,
            max_tokens=command.tokens,
            report=update,
        )
    if command.json:
        print_json({"path": str(command.out), **found})
        return
    audit = found["audit"]
    names = ("loss_before", "loss_after", "calibrated_before", "calibrated_after", "accuracy_before", "accuracy_after")
    rows = [[change["task"], *(change[name] for name in names)] for change in audit["tasks"]]  # type: ignore[literal-required]
    header = ["task", "raw before", "after", "calibrated before", "after", "accuracy before", "after"]
    print_table("losses on held-out prompts", header, rows, right=(1, 2, 3, 4, 5, 6))
    folded = found["folded_at_readers"] + found["folded_at_source"]
    print_text(
        f"{command.out}: validation loss {audit['val_loss_before']:.4f} before, {audit['val_loss_after']:.4f} after, "
        f"KL {audit['kl']:.4f} nats a token; {folded} nodes folded into biases, {found['gated']} gated for good"
    )


def bridge(command: args.Bridge) -> None:
    """Train a bridge into a folder."""
    from sparsecircuits.bridges.beginning import new_sparse
    from sparsecircuits.bridges.record import read_record
    from sparsecircuits.bridges.training import started_seed, train_bridge
    from sparsecircuits.interop.loading import load_model

    if (command.sparse is None) == (command.preset is None):
        raise UserError("give the sparse model to begin with, or --preset for a new one: one of the two")
    given = [path for path in (command.dense, command.sparse) if path is not None]
    check_paths(models=given, data=command.data, out=[command.out])
    dense = load_model(command.dense)
    if command.preset is not None:
        seed = started_seed(command.out) if command.resume else command.config.seed
        sparse = new_sparse(dense, preset(command.preset), seed)
    else:
        assert command.sparse is not None
        sparse = load_model(command.sparse)
    sparse.corpus = command.data or sparse.corpus
    _, tokens = text_of(sparse, command.data)
    with progress("bridge  ") as update:
        train_bridge(
            dense,
            sparse,
            command.out,
            tokens,
            command.config,
            dense_path=str(command.dense.resolve()) if command.dense.exists() else str(command.dense),
            resume=command.resume,
            report=update,
        )
    found = read_record(command.out)["measures"]
    if command.json:
        print_json({"path": str(command.out), **found})
        return
    columns = ["nmse_encoder", "nmse_decoder", "loss_to_sparse", "kl_to_sparse", "loss_to_dense", "kl_to_dense"]
    header = ["boundary", "NMSE encoder", "NMSE decoder", "dense to sparse: loss", "KL", "sparse to dense: loss", "KL"]
    rows = [[_place(row), *(row[column] for column in columns)] for row in found["boundaries"]]
    print_table("single switches, nats a token", header, rows, right=tuple(range(7)))
    print_table(
        "switches at random", ["pattern", "loss", "KL"], [list(row.values()) for row in found["sampled"]], (1, 2)
    )
    print_text(
        f"{command.out}: loss {found['loss_dense']:.3f} dense, {found['loss_sparse']:.3f} sparse "
        f"(KL {found['kl_sparse']:.3f}) over {found['tokens']:,} tokens"
    )


def _place(row: "BoundaryRow") -> str:
    """The boundary that is joined to the same of the other model, or both."""
    dense, sparse = row["boundary"], row["sparse_boundary"]
    return str(dense) if dense == sparse else f"{dense}:{sparse}"


def steer(command: args.Steer) -> None:
    """Steer a dense model from sparse nodes."""
    from sparsecircuits.bridges.directions import stream_reads
    from sparsecircuits.bridges.drawing import draw_steering
    from sparsecircuits.bridges.steering import steer
    from sparsecircuits.bridges.storage import load_bridge
    from sparsecircuits.files import write_text
    from sparsecircuits.interop.circuit_files import load_circuit
    from sparsecircuits.tasks import get_task

    check_paths(models=[command.dense], out=[command.out] if command.out else [])
    bridge = load_bridge(command.bridge, command.dense)
    nodes = list(command.node)
    if command.circuit is not None:
        circuit = load_circuit(command.circuit, bridge.sparse)
        circuit.check_model(bridge.sparse)
        nodes += stream_reads(bridge.sparse, circuit.node_names, bridge.joined.sparse)
    found = steer(
        bridge,
        get_task(command.task, bridge.sparse.tokenizer),
        nodes,
        toward=command.toward,
        strengths=command.strengths,
        n_pairs=command.pairs,
        controls=command.controls,
        seed=command.seed,
    )
    if command.out is not None:
        write_text(command.out / "steering.json", json.dumps(found, indent=1) + "\n")
        draw_steering(found, command.out / "steering.png")
    if command.json:
        print_json({**found, "path": None if command.out is None else str(command.out)})
        return
    worst = [max(column) for column in zip(*found["random_nodes"], *found["random_directions"], strict=True)]
    curves = [found["strengths"], found["steered"], found["steered_between"], found["sparse"], found["dense_means"]]
    curves += [worst] if worst else []
    header = ["strength", "steered", "of the two answers", "sparse model", "dense means"]
    header += ["largest of the random"] if worst else []
    rows = [list(row) for row in zip(*curves, strict=True)]
    title = f"probability of {found['answer']!r}, {found['prompts']} prompts of {found['task']}"
    print_table(title, header, rows, right=tuple(range(len(header))))
    print_text(f"on the prompts whose answer it is: {found['counterfactual']:.3f}")
