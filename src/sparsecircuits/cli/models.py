"""The `models` command: what ships with the package."""

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.show import print_json, print_table, print_text
from sparsecircuits.interop.manifest import Shipped
from sparsecircuits.interop.pretrained import manifest

TARGET = 0.15
"""The paper's target loss."""


def models(command: args.Models) -> None:
    """List what ships, or show one of them."""
    found = manifest()
    if command.name is not None:
        model = found.find(command.name)
        if command.json:
            print_json(model.model_dump(mode="json"))
        else:
            _print_shipped(model)
        return
    if command.json:
        print_json({"models": [model.model_dump(mode="json") for model in found.models]})
        return
    if not found.models:
        print_text("no pretrained models came with this installation")
        return
    header = ["name", "nonzeros", "of", "validation loss", "tasks done", "circuits", "about"]
    rows = [
        [m.name, m.nonzeros, m.parameters, m.validation_loss, _tasks_done(m), len(m.circuits), m.about]
        for m in found.models
    ]
    print_table("pretrained models", header, rows, right=(1, 2, 3, 4, 5))


def _tasks_done(model: Shipped) -> int:
    """Tasks at the paper's target loss, calibrated."""
    return sum(calibrated <= TARGET for _, calibrated in model.tasks.values())


def _print_shipped(model: Shipped) -> None:
    print_text(f"pretrained:{model.name}  {model.about}\n")
    print_text(f"made by     {model.command}")
    print_text(f"read        {model.tokens:,} tokens in {model.hours:.1f} hours ({model.machine})")
    print_text(f"weights     {model.nonzeros:,} of {model.parameters:,} nonzero, content {model.content_hash}")
    print_text(f"validation  {model.validation_loss:.3f} nats a token")
    header = ["task", "raw", "calibrated", "nodes", "edges", "circuit"]
    rows = []
    for name, losses in model.tasks.items():
        circuit = model.circuits.get(name)
        found = ["", "", ""] if circuit is None else [circuit.nodes, circuit.edges, circuit.loss]
        rows.append([name, *losses, *found])
    print_table(f"losses on held-out prompts; circuits at a target of {TARGET}", header, rows, right=(1, 2, 3, 4, 5))
