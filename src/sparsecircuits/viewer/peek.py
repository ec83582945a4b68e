"""What a circuit's file holds, without torch: the picture stands before the model is loaded."""

from typing import Any

from sparsecircuits.circuits.residual import residual_links
from sparsecircuits.circuits.schema import CircuitData


def file_payload(circuit: CircuitData) -> dict[str, Any]:
    """The payload of `render_html` from a circuit alone: no prompts, no activations."""
    losses = circuit.shown_losses
    return {
        "schema": 1,
        "title": circuit.task,
        "task": circuit.task,
        "description": "",
        "model": {"name": circuit.model_name, "id": circuit.model_id},
        "summary": {
            "loss": losses.get("circuit"),
            "loss_full": losses.get("full"),
            "loss_empty": losses.get("empty"),
            "loss_ablated": losses.get("ablated"),
            "loss_full_calibrated": losses.get("full_calibrated"),
            "loss_ablated_calibrated": losses.get("ablated_calibrated"),
            "target_loss": circuit.target_loss,
            "n_nodes": len(circuit.nodes),
            "n_edges": len(circuit.edges),
            "ablation": circuit.ablation,
            "split": losses["split"].replace("_", "-") if "split" in losses else None,
            "n_prompts": 2 * losses["n_pairs"] if "n_pairs" in losses else None,
        },
        "answers": [{"text": text, "id": None} for text in circuit.answers],
        "nodes": [node.model_dump() for node in circuit.nodes],
        "edges": [edge.model_dump() for edge in circuit.edges],
        "residual": [{"source": a, "target": b} for a, b in residual_links(circuit.node_names)],
    }
