"""Circuits of hand-made models, without pruning."""

import torch

from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.extraction import edges_of, nodes_of
from sparsecircuits.models.storage import content_hash
from sparsecircuits.nodes.space import NodeSpace


def circuit_of(model, names, values=None, task="single_double_quote.plain", **changed):
    """A circuit of a model with these nodes and all edges between them; values [nodes]: what others are frozen at."""
    space = NodeSpace.of(model.config)
    values = torch.zeros(space.size) if values is None else values
    fields = {
        "task": task,
        "answers": ('")', "')"),
        "model_name": model.name,
        "model_id": content_hash(model),
        "target_loss": 0.15,
        "nodes": tuple(nodes_of(names, model.config, space.split(values))),
        "edges": tuple(edges_of(names, model)),
        "frozen": encode_frozen(space, values),
    }
    return Circuit(**{**fields, **changed})
