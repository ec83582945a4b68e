"""Circuits in the format of the Mechanistic Interpretability Benchmark (MIB): graphs of heads and MLPs, as EAP-IG's
`Graph.to_json` and `to_pt` write them.

A node there is the input, a head (`a0.h3`), an MLP (`m0`) or the logits; an edge is what one writes to the residual
stream and another reads of it, for heads apart by `<q>`, `<k>`, `<v>`. Ours are channels and single weights, so writing
loses which channels of a head or neurons of an MLP they are, the weights, what nodes are frozen at and the calibration.
What a graph can say exactly is which channels of the stream each node writes: MIB's "neurons", in the .pt form alone
(the reader of the JSON form gives all heads of a layer those of one of them).
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.extraction import edges_of, nodes_of
from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, read_json, write_text
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.names import split_node, split_site
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.torch_files import load_plain
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.tasks import Task

LARGEST_FILE = 2_000_000_000  # bytes: those of the benchmark's largest models have hundreds of MB
_HEAD = re.compile(r"a(\d+)\.h(\d+)")


@dataclass(frozen=True)
class MibGraph:
    """A graph of heads and MLPs. scores: of the edges, for those that rank them; writes: the channels of the residual
    stream that a node writes within the circuit, by node, or None where a file does not say."""

    n_layers: int
    n_heads: int
    d_model: int
    nodes: frozenset[str]
    """Those that are in, but `logits`, which always is."""
    edges: frozenset[str]
    scores: dict[str, float]
    writes: dict[str, frozenset[int]] | None = None

    @property
    def sources(self) -> list[str]:
        """All nodes that write, in order of computation."""
        return ["input", *(name for layer in range(self.n_layers) for name in self._layer(layer))]

    def _layer(self, layer: int) -> list[str]:
        return [*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}"]

    @property
    def targets(self) -> list[str]:
        """All places that read, in the order of the .pt form: each layer's heads by q, k, v, its MLP; the logits."""
        found = []
        for layer in range(self.n_layers):
            found += [f"a{layer}.h{head}<{part}>" for part in "qkv" for head in range(self.n_heads)]
            found.append(f"m{layer}")
        return [*found, "logits"]

    def possible(self) -> Iterator[tuple[str, str]]:
        """All pairs of a source and a target behind it."""
        for target in self.targets:
            layer = self.n_layers if target == "logits" else int(re.findall(r"\d+", target)[0])
            heads = self.n_heads if target.startswith("m") else 0
            for source in self.sources[: 1 + layer * (self.n_heads + 1) + heads]:
                yield source, target

    @property
    def _config(self) -> dict[str, Any]:
        sizes = {"n_layers": self.n_layers, "n_heads": self.n_heads, "d_model": self.d_model}
        return {**sizes, "parallel_attn_mlp": False}

    def save(self, path: str | Path) -> Path:
        """Write a .json or a .pt file, by the name's end. The JSON form leaves out `writes`."""
        path = Path(path)
        if path.suffix == ".json":
            nodes = {name: {"in_graph": name in self.nodes} for name in self.sources} | {"logits": {"in_graph": True}}
            names = [f"{source}->{target}" for source, target in self.possible()]
            edges = {name: {"score": self.scores.get(name, 0.0), "in_graph": name in self.edges} for name in names}
            return write_text(path, json.dumps({"cfg": self._config, "nodes": nodes, "edges": edges}) + "\n")
        if path.suffix != ".pt":
            raise UserError(f"MIB's graphs are .json or .pt files, not {path.name}")
        import torch

        with atomic_path(path) as temporary:
            torch.save(self._tensors(), temporary)
        return path

    def _tensors(self) -> dict[str, Any]:
        import torch

        rows = {name: place for place, name in enumerate(self.sources)}
        columns = {name: place for place, name in enumerate(self.targets)}
        scores = torch.zeros(len(rows), len(columns))
        inside = torch.zeros(len(rows), len(columns), dtype=torch.bool)
        for source, target in self.possible():
            name = f"{source}->{target}"
            scores[rows[source], columns[target]] = self.scores.get(name, 0.0)
            inside[rows[source], columns[target]] = name in self.edges
        found = {
            "cfg": self._config,
            "src_nodes": list(rows),
            "dst_nodes": list(columns),
            "edges_scores": scores,
            "edges_in_graph": inside,
            "nodes_in_graph": torch.tensor([name in self.nodes for name in rows]),
        }
        if self.writes is not None:
            neurons = torch.zeros(len(rows), self.d_model, dtype=torch.bool)
            for name, channels in self.writes.items():
                neurons[rows[name], sorted(channels)] = True
            found |= {"neurons_in_graph": neurons, "neurons_scores": neurons.float()}
        return found


def to_mib(circuit: Circuit, config: ModelConfig) -> MibGraph:
    """The heads and MLPs that a circuit has nodes in, and the edges between them that its own weights make, one for
    each channel of the residual stream which the source writes and the target reads. Their number is the score."""
    writes: dict[str, set[int]] = {"input": set(range(config.d_model))}
    reads: dict[str, set[int]] = {}
    nodes = {"input"}
    for node in circuit.nodes:
        if node.site in ("attn.q", "attn.k", "attn.v"):
            nodes.add(f"a{node.layer}.h{node.index // config.d_head}")
        elif node.site == "mlp.post_act":
            nodes.add(f"m{node.layer}")
        elif node.layer is None:
            reads.setdefault("logits", set()).add(node.index)
    for edge in circuit.edges:
        (source, channel), (target, row) = split_node(edge.source), split_node(edge.target)
        layer, kind = split_site(target)
        head = f"a{layer}.h{(row if kind != 'attn.resid_delta' else channel) // config.d_head}"
        if kind == "attn.resid_delta":
            writes.setdefault(head, set()).add(row)
        elif kind == "mlp.resid_delta":
            writes.setdefault(f"m{layer}", set()).add(row)
        else:
            place = f"m{layer}" if kind == "mlp.post_act" else f"{head}<{kind[-1]}>"
            # A position channel beside the stream comes from the input, and from nowhere else.
            reads.setdefault(place, set()).add(channel)
    empty = MibGraph(config.n_layer, config.heads, config.d_model, frozenset(nodes), frozenset(), {})
    scores: dict[str, float] = {}
    for source, target in empty.possible():
        shared = writes.get(source, set()) & reads.get(target, set())
        if source == "input":
            shared |= {channel for channel in reads.get(target, set()) if channel >= config.d_model}
        if shared:
            scores[f"{source}->{target}"] = float(len(shared))
    own = {name: frozenset(writes.get(name, ())) for name in nodes - {"input"}}
    read = frozenset(channel for found in reads.values() for channel in found if channel < config.d_model)
    sizes = (config.n_layer, config.heads, config.d_model)
    return MibGraph(*sizes, frozenset(nodes), frozenset(scores), scores, {**own, "input": read})


def read_mib(path: str | Path) -> MibGraph:
    """A graph from its .json or .pt file. Raises UserError for one that is damaged, or of a model that computes
    attention and MLP side by side."""
    path = Path(path)
    raw = load_plain(path, "MIB graph") if path.suffix == ".pt" else read_json(path, "MIB graph", LARGEST_FILE)
    try:
        return _from_tensors(raw) if path.suffix == ".pt" else _from_json(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"{path} is no MIB graph: {type(error).__name__} {error}") from error


def _sizes(config: dict[str, Any]) -> MibGraph:
    if config["parallel_attn_mlp"]:
        raise UserError("this graph is of a model whose attention and MLP run side by side: ours has none such")
    n_layers, n_heads, d_model = (int(config[name]) for name in ("n_layers", "n_heads", "d_model"))
    if min(n_layers, n_heads, d_model) < 1 or n_layers * (n_heads + 1) > 20_000:  # edges go by its square
        raise ValueError(f"{n_layers} layers of {n_heads} heads and {d_model} channels")
    return MibGraph(n_layers, n_heads, d_model, frozenset(), frozenset(), {})


def _checked(empty: MibGraph, nodes: list[str], scores: dict[str, float], edges: list[str], writes: Any) -> MibGraph:
    """The graph, if its nodes and edges are those that a model of its size has."""
    possible = {f"{source}->{target}" for source, target in empty.possible()}
    strange = sorted(({*scores, *edges} - possible) | (set(nodes) - {*empty.sources, "logits"}))
    if strange:
        raise UserError(f"{strange[0][:60]!r} is no part of a model with {empty.n_layers} layers")
    inside = frozenset(nodes) - {"logits"}
    return MibGraph(empty.n_layers, empty.n_heads, empty.d_model, inside, frozenset(edges), scores, writes)


def _from_json(raw: dict[str, Any]) -> MibGraph:
    nodes = [name for name, said in raw["nodes"].items() if said["in_graph"]]
    if any(said.get("neurons") is not None for said in raw["nodes"].values()):
        raise UserError("it has neurons, which the JSON form does not keep apart by head: give its .pt form")
    edges = [name for name, said in raw["edges"].items() if said["in_graph"]]
    scores = {name: float(said["score"]) for name, said in raw["edges"].items() if said["score"]}
    return _checked(_sizes(raw["cfg"]), nodes, scores, edges, None)


def _from_tensors(raw: dict[str, Any]) -> MibGraph:
    empty = _sizes(raw["cfg"])
    sources, targets = raw["src_nodes"], raw["dst_nodes"]
    if (sources, targets) != (empty.sources, empty.targets):
        raise ValueError("its nodes are not in order")
    rows = list(itertools.product(range(len(sources)), range(len(targets))))
    real = set(empty.possible())
    scored, inside = raw["edges_scores"].tolist(), raw["edges_in_graph"].tolist()
    # Places that are no edges hold anything; -inf in some files.
    pairs = [(row, column) for row, column in rows if (sources[row], targets[column]) in real]
    named = {(row, column): f"{sources[row]}->{targets[column]}" for row, column in pairs}
    nodes = [name for name, there in zip(sources, raw["nodes_in_graph"].tolist(), strict=True) if there]
    writes = None
    if "neurons_in_graph" in raw:
        kept = raw["neurons_in_graph"].tolist()
        writes = {name: frozenset(c for c, on in enumerate(kept[sources.index(name)]) if on) for name in nodes}
    scores = {name: scored[row][column] for (row, column), name in named.items() if scored[row][column]}
    edges = [name for (row, column), name in named.items() if inside[row][column]]
    return _checked(empty, nodes, scores, edges, writes)


def node_names(graph: MibGraph, config: ModelConfig) -> list[str]:
    """The nodes of ours that a graph means: all channels of its heads, all neurons of its MLPs, what their layers
    read, and what they write (only the channels that it names, if it does), in order of computation.

    Raises UserError for a graph of another shape, and for one that lacks an edge between nodes that it has: in a
    residual stream that all share, one reader cannot be kept from one writer.
    """
    sizes = (config.n_layer, config.heads, config.d_model)
    if (graph.n_layers, graph.n_heads, graph.d_model) != sizes:
        raise UserError(
            f"the graph is of {graph.n_layers} layers, {graph.n_heads} heads and d_model {graph.d_model}; "
            f"the model has {config.n_layer}, {config.heads} and {config.d_model}"
        )
    for source, target in graph.possible():
        joined = source in graph.nodes and (target == "logits" or target.partition("<")[0] in graph.nodes)
        if joined and f"{source}->{target}" not in graph.edges:
            raise UserError(
                f"the graph has {source} and {target} without an edge between: circuits here cannot say that"
            )
    space = NodeSpace.of(config)
    kept: list[str] = []
    for site, place in space.slices.items():
        layer, kind = split_site(site)
        width = place.stop - place.start
        heads = [name for name in sorted(graph.nodes) if (found := _HEAD.fullmatch(name)) and int(found[1]) == layer]
        here = heads if kind.startswith("attn") else [f"m{layer}"] if f"m{layer}" in graph.nodes else []
        if kind in ("attn.q", "attn.k", "attn.v"):
            own = {int(name.partition(".h")[2]) for name in heads}
            channels = [index for index in range(width) if index // config.d_head in own]
        elif kind.endswith("resid_delta") and graph.writes is not None:
            channels = sorted({channel for name in here for channel in graph.writes[name]})
        else:
            channels = list(range(width)) if here or layer is None else []
        kept += [f"{site}.{index}" for index in channels]
    return kept


def from_mib(graph: MibGraph, model: SparseTransformer, task: Task, target_loss: float = 0.15) -> Circuit:
    """A graph as a circuit of a model: the nodes of `node_names`, all weights between them, and all else at its mean
    over the text that the model was trained on. Raises UserError as `node_names` does."""
    space, names = NodeSpace.of(model.config), node_names(graph, model.config)
    means = training_means(model)
    return Circuit(
        task=task.name,
        answers=task.answers,
        model_name=model.name,
        model_id=content_hash(model),
        loss=task.loss,
        target_loss=target_loss,
        nodes=tuple(nodes_of(names, model.config, space.split(means))),
        edges=tuple(edges_of(names, model)),
        frozen=encode_frozen(space, means),
        found_by={"method": "MIB graph"},  # type: ignore[arg-type]
    )
