"""The command `export`."""

from pathlib import Path

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.checks import check_paths, run_around
from sparsecircuits.cli.show import print_json, print_text, progress
from sparsecircuits.errors import UserError


def export(command: args.Export) -> None:
    """Write a circuit for other programs."""
    from sparsecircuits.files import write_text
    from sparsecircuits.inference.drawing import draw_circuit
    from sparsecircuits.inference.export import circuit_graphml, circuit_program, readable_program
    from sparsecircuits.interop.circuit_files import read_circuits
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.interop.mib import to_mib
    from sparsecircuits.tasks import task_of_circuit

    if command.readable and command.to != "python":
        raise UserError("--readable is for --to python")
    check_paths(models=[command.model], out=[command.out.parent])
    file = _chosen(read_circuits(command.circuit), command)
    model = load_model(command.model or run_around(file.path))
    circuit = file.to_run(model)
    result: dict[str, object] = {"circuit": str(file.path), "task": circuit.task, "path": str(command.out)}
    if command.to == "json":
        circuit.save(command.out)
    elif command.to == "graphml":
        write_text(command.out, circuit_graphml(circuit))
    elif command.to == "mib":
        to_mib(circuit, model.config).save(command.out)
    elif command.to in ("svg", "png"):
        if command.out.suffix.lower() != f".{command.to}":
            raise UserError(f"--to {command.to} writes a file that ends in .{command.to}, not {command.out.name}")
        draw_circuit(circuit, command.out)
    else:
        task = task_of_circuit(circuit.task, file.path.parent, model.tokenizer)
        with progress("export  ") as update:
            if command.readable:
                update(0.0, "finding the simplest program that agrees")
                readable = readable_program(circuit, model, task)
                text = readable.text
                result |= {"agreement": readable.agreement, "accuracy": readable.accuracy, "prompts": readable.prompts}
            else:
                update(0.0, "describing nodes")
                text = circuit_program(circuit, model, task)
        write_text(command.out, text)
        result["lines"] = text.count("\n")
    if command.json:
        print_json(result)
        return
    said = f"{command.out}: {circuit.task}"
    if "agreement" in result:
        said += f", the exact program's answer on {result['agreement']:.1%} of held-out prompts"
    print_text(said)


def _chosen(found, command: args.Export):  # type: ignore[no-untyped-def]
    """The one circuit that is meant."""
    named = [file for file in found if command.task in (None, Path(file.path).parent.name)]
    if len(named) != 1:
        known = ", ".join(sorted(Path(file.path).parent.name for file in found)) or "none"
        raise UserError(f"{command.circuit} holds {len(named)} such circuits: name one with --task ({known})")
    return named[0]
