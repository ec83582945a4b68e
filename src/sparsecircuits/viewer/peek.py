"""What a circuit's file holds, without torch: the picture stands before the model is loaded."""

from sparsecircuits.circuits.residual import residual_links
from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.viewer.identity import circuit_id
from sparsecircuits.viewer.schema import Answer, CircuitNode, Edge, ModelFacts, Payload, ResidualLink, Summary


def file_payload(circuit: CircuitData) -> Payload:
    """The payload of `render_html` from a circuit alone: no prompts, no activations."""
    losses = circuit.shown_losses
    measured = _importance_prompts(circuit)
    return Payload(
        schema=1,
        id=circuit_id(circuit.model_name, circuit.task, circuit.checksum()),
        title=circuit.task,
        task=circuit.task,
        description="",
        model=ModelFacts(name=circuit.model_name, id=circuit.model_id),
        summary=Summary(
            loss=losses.circuit,
            loss_full=losses.full,
            loss_empty=losses.empty,
            loss_ablated=losses.ablated,
            loss_full_calibrated=losses.full_calibrated,
            loss_ablated_calibrated=losses.ablated_calibrated,
            target_loss=circuit.target_loss,
            n_nodes=len(circuit.nodes),
            n_edges=len(circuit.edges),
            ablation=circuit.ablation,
            split=losses.split and losses.split.replace("_", "-"),
            n_prompts=losses.n_pairs and 2 * losses.n_pairs,
            **({} if measured is None else {"n_importance": measured}),
        ),
        answers=[Answer(text=text, id=None) for text in circuit.answers],
        nodes=[CircuitNode(**node.model_dump()) for node in circuit.nodes],
        edges=[Edge(**edge.model_dump()) for edge in circuit.edges],
        residual=[ResidualLink(source=a, target=b) for a, b in residual_links(circuit.node_names)],
    )


def _importance_prompts(circuit: CircuitData) -> int | None:
    """How many validation prompts pruning measured on; None for a circuit that was found elsewhere."""
    pairs = circuit.found_by.config.get("eval_pairs")
    return 2 * pairs if isinstance(pairs, int) else None
