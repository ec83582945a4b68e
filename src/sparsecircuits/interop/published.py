"""Circuits that the authors of Gao et al. 2025 published (`viz_data.pt`), read as `Circuit` objects.

A file holds the kept channels of each site, what ablating each node and each edge does to the loss, the
prompts, and the config of the model. It holds neither the model nor the values that other nodes are frozen
at; with the model at hand, edges get their weights, and with its text the circuit runs like one of ours.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import Tensor

from sparsecircuits.circuits.circuit import UNKNOWN_MODEL, Circuit, Edge, Node, encode_frozen
from sparsecircuits.circuits.extraction import edges_of
from sparsecircuits.circuits.schema import FoundBy, ShownLosses
from sparsecircuits.errors import UserError
from sparsecircuits.interop.plain_values import DamagedValue, integers, numbers, plain, scalar, unmasked
from sparsecircuits.interop.released import config_from_released
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.names import FINAL_SITE, NODE_SITES, node_sites, split_site
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.torch_files import load_plain
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.tasks import list_tasks

FILE_NAME = "viz_data.pt"
TARGET_LOSS = 0.15  # what the paper prunes to; files say no other
TASK_SUFFIX = "_beeg"
_PAIR = 2.0  # losses in the files are sums over the two prompts of a pair

_CONTENT = ("circuit_data", "num_total_nodes", "prune_config")
_IMPORTANCES = (
    "loss",
    "interv_loss",
    "ch_interv_losses",
    "pair_data",
    "pair_data_connections",
    "beeg_model_config",
)

Ends = tuple[str, str]


@dataclass(frozen=True)
class Published:
    """What a published file says of a circuit: read once, then made a circuit of, with its model or without."""

    path: Path
    content: Mapping[str, Any]
    importances: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file; prompts and activations, most of it, are not kept. Never executes code. Raises UserError for
        one that is damaged."""
        path = Path(path)
        content = _object(load_plain(path, "circuit"), "the file", path)
        importances = _object(content.get("importances", {}), "importances", path)
        return cls(path, _only(content, _CONTENT), _only(importances, _IMPORTANCES))

    def circuit(
        self, model: SparseTransformer | None = None, means: Tensor | None = None, task: str | None = None
    ) -> Circuit:
        """The circuit, as `read_published` gives it."""
        path, importances = self.path, self.importances
        config = model.config if model is not None else _config(importances, path)
        try:
            base = scalar(importances.get("interv_loss"), "interv_loss")
            kept = _kept(_object(self.content.get("circuit_data"), "circuit_data", path), config)
            nodes = _nodes(kept, config, _node_importances(importances, kept, base), _means_by_site(config, means))
            deltas = _matrices(importances.get("pair_data"), kept, "pair_data")
            weights = _matrices(importances.get("pair_data_connections"), kept, "pair_data_connections")
            place, model_name = _from_folders(path)
            names = [node.name for node in nodes]
            name = task or place
            return Circuit(
                task=name,
                answers=_answers(name),
                model_name=model.name if model is not None else model_name,
                model_id=UNKNOWN_MODEL if model is None else content_hash(model),
                target_loss=TARGET_LOSS,
                nodes=tuple(nodes),
                edges=tuple(_edges(names, deltas, weights) if model is None else _with(edges_of(names, model), deltas)),
                frozen={} if model is None or means is None else encode_frozen(NodeSpace.of(model.config), means),
                found_by=_found_by(path, self.content, importances, base),
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path} is no circuit that can be used: {where}: {first['msg']}") from error
        except DamagedValue as error:
            raise UserError(f"{path} is no circuit that can be used: {error}") from error


def read_published(
    path: str | Path, model: SparseTransformer | None = None, means: Tensor | None = None, task: str | None = None
) -> Circuit:
    """Read a published circuit.

    model: the model that it was found in; then edges are its nonzero weights between kept nodes, and the
    circuit is tied to it. means: [nodes], what nodes outside are frozen at; without them the circuit can be
    shown and not run. task: its name, by default what the file's folder says.

    Never executes code. Raises UserError for a file that is damaged, contradicts itself, or names nodes that
    the model lacks.
    """
    return Published.read(path).circuit(model, means, task)


def _only(raw: Mapping[Any, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: raw[name] for name in names if name in raw}


@dataclass(frozen=True)
class _Kept:
    """The kept channels of each site, in the file's order and in order of computation."""

    channels: dict[str, list[int]]

    def sites(self, n_layer: int) -> list[str]:
        return [site for site in node_sites(n_layer) if site in self.channels]


def _object(value: Any, what: str, path: Path) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path} is no published circuit: {what} is missing or no dictionary")
    return value


def _config(importances: Mapping[Any, Any], path: Path) -> ModelConfig:
    raw = _object(importances.get("beeg_model_config"), "beeg_model_config", path)
    if not all(isinstance(key, str) for key in raw):
        raise UserError(f"{path} is no published circuit: beeg_model_config has a key that is no text")
    return config_from_released(raw)


def _kept(raw: Mapping[Any, Any], config: ModelConfig) -> _Kept:
    channels: dict[str, list[int]] = {}
    for site, value in raw.items():
        if site == "prune_config":
            continue
        layer, kind = split_site(site) if isinstance(site, str) else (None, "")
        in_layer = layer is not None and layer < config.n_layer and kind in NODE_SITES and site == f"{layer}.{kind}"
        if site != FINAL_SITE and not in_layer:
            raise DamagedValue(f"circuit_data has the site {site!r}, which the model lacks")
        indices = integers(unmasked(value), f"circuit_data of {site}")
        width = config.site_width(kind)
        if any(not 0 <= index < width for index in indices):
            raise DamagedValue(f"circuit_data of {site} has a channel outside 0..{width - 1}")
        if len(set(indices)) != len(indices):
            raise DamagedValue(f"circuit_data of {site} has a channel twice")
        channels[site] = indices
    if sum(map(len, channels.values())) == 0:
        raise DamagedValue("circuit_data keeps no node")
    return _Kept(channels)


def _node_importances(importances: Mapping[Any, Any], kept: _Kept, base: float | None) -> dict[str, list[float]]:
    """Rise of the loss in nats without each kept channel, by site, in the file's order."""
    losses = importances.get("ch_interv_losses")
    if losses is None:
        return {}
    if not isinstance(losses, dict) or base is None:
        raise DamagedValue("ch_interv_losses is no dictionary, or interv_loss is missing")
    found = {}
    for site, channels in kept.channels.items():
        if channels or site in losses:
            values = numbers(losses.get(site), len(channels), f"ch_interv_losses of {site}")
            if len(values) != len(channels):
                raise DamagedValue(f"ch_interv_losses of {site} lacks a number")
            found[site] = [(value - base) / _PAIR for value in values]
    return found


def _means_by_site(config: ModelConfig, means: Tensor | None) -> dict[str, Tensor]:
    return {} if means is None else NodeSpace.of(config).split(means.cpu())


def _nodes(
    kept: _Kept, config: ModelConfig, importances: Mapping[str, list[float]], means: Mapping[str, Tensor]
) -> list[Node]:
    """Node records in order of computation."""
    found = []
    for full_site in kept.sites(config.n_layer):
        layer, site = split_site(full_site)
        heads = site in ("attn.q", "attn.k", "attn.v")
        channels = kept.channels[full_site]
        for place, index in sorted(enumerate(channels), key=lambda pair: pair[1]):
            found.append(
                Node(
                    name=f"{full_site}.{index}",
                    layer=layer,
                    site=site,
                    index=index,
                    head=index // config.d_head if heads else None,
                    mean=means[full_site][index].item() if full_site in means else None,
                    importance=importances[full_site][place] if full_site in importances else None,
                )
            )
    return found


def _entries(raw: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
    """(matrix, source ids, target ids, locations) of each pair of sites; some files nest the lists of several
    processes."""
    for entry in raw:
        if isinstance(entry, list | tuple) and len(entry) == 4 and isinstance(entry[0], Tensor):
            yield entry[0], entry[1], entry[2], entry[3]
        elif isinstance(entry, list | tuple) and all(isinstance(inner, list | tuple) for inner in entry):
            for inner in entry:
                if len(inner) != 4 or not isinstance(inner[0], Tensor):
                    raise DamagedValue("an entry is not (matrix, source ids, target ids, locations)")
                yield inner[0], inner[1], inner[2], inner[3]
        else:
            raise DamagedValue("an entry is not (matrix, source ids, target ids, locations)")


def _matrices(raw: Any, kept: _Kept, what: str) -> dict[Ends, float] | None:
    """Nonzero entries by the names of their ends; None where the file has no such matrices. A last row that is
    called "bias" is no node's and is left out."""
    if raw is None:
        return None
    if not isinstance(raw, list | tuple):
        raise DamagedValue(f"{what} is no list")
    found: dict[Ends, float] = {}
    for matrix, sources, targets, sites in _entries(raw):
        if not (isinstance(sites, list | tuple) and len(sites) == 2 and all(isinstance(s, str) for s in sites)):
            raise DamagedValue(f"{what} has an entry without its two locations")
        where = f"{what} of {sites[0]} → {sites[1]}"
        if isinstance(sources, list | tuple) and sources and sources[-1] == "bias":
            sources, matrix = sources[:-1], matrix[:-1]
        ids = [integers(sources, where), integers(targets, where)]
        for site, channels in zip(sites, ids, strict=True):
            if not set(channels) <= set(kept.channels.get(site, ())) or len(set(channels)) != len(channels):
                raise DamagedValue(f"{where} names a channel of {site} that is not kept, or one twice")
        if matrix.numel() == 0 and 0 in map(len, ids):
            continue
        if tuple(matrix.shape) != (len(ids[0]), len(ids[1])):
            raise DamagedValue(f"{where} has the shape {tuple(matrix.shape)}, its ids say {tuple(map(len, ids))}")
        values = plain(matrix, where).double()
        if not bool(torch.isfinite(values).all()):
            raise DamagedValue(f"{where} holds values that are not finite numbers")
        for row, column in values.nonzero().tolist():
            ends = (f"{sites[0]}.{ids[0][row]}", f"{sites[1]}.{ids[1][column]}")
            if ends in found:
                raise DamagedValue(f"{what} holds the edge {ends[0]} → {ends[1]} twice")
            found[ends] = values[row, column].item()
    return found


def _edges(names: list[str], deltas: dict[Ends, float] | None, weights: dict[Ends, float] | None) -> list[Edge]:
    """Edges as far as the file holds them: weights where it does, else the pairs whose ablation does something."""
    order = {name: place for place, name in enumerate(names)}
    ends = sorted(weights if weights is not None else deltas or {}, key=lambda e: (order[e[0]], order[e[1]]))
    known = weights or {}
    return _with([Edge(source=e[0], target=e[1], weight=known.get(e)) for e in ends], deltas)


def _with(edges: list[Edge], deltas: dict[Ends, float] | None) -> list[Edge]:
    """The edges with what their ablation does to the loss, in nats a prompt."""
    if deltas is None:
        return edges
    return [e.model_copy(update={"importance": deltas.get((e.source, e.target), 0.0) / _PAIR}) for e in edges]


def _from_folders(path: Path) -> tuple[str, str]:
    """(task, model) by the folders of a published file: viz/<model>/<task>/<sweep>/<k>/viz_data.pt; else the
    folder that bears a task's name, else the one that the file is in."""
    folders = [folder.name for folder in path.resolve().parents]
    tasks = {task.name for task in list_tasks(beside=True)}
    place = 2 if folders[4:5] == ["viz"] else next(
        (place for place, name in enumerate(folders[:4]) if name.removesuffix(TASK_SUFFIX) in tasks), None
    )  # fmt: skip
    if place is None:
        return folders[0] or "unknown", "unknown"
    return folders[place].removesuffix(TASK_SUFFIX), [*folders, ""][place + 1] or "unknown"


def _answers(task: str) -> tuple[str, str]:
    """The answers of a task of that name; files do not hold them."""
    known = {known.name: known.answers for known in list_tasks(beside=True)}
    return known.get(task, ("first half", "second half"))


def _found_by(path: Path, content: Mapping[Any, Any], importances: Mapping[Any, Any], base: float | None) -> FoundBy:
    """What else the file says: its losses (as mean over prompts), sizes, and how it was pruned."""
    full = scalar(importances.get("loss"), "loss")
    pruned = content.get("prune_config")
    settings = pruned if isinstance(pruned, dict) else {}
    total = scalar(content.get("num_total_nodes"), "num_total_nodes")
    return FoundBy(
        method="published",
        file="/".join(path.resolve().parts[-5:]),
        published_losses=ShownLosses(circuit=_per_prompt(base), full=_per_prompt(full)),
        nodes_of_the_model=None if total is None else int(total),
        prune_config={str(key)[:200]: _setting(value) for key, value in settings.items()},
    )


def _per_prompt(loss: float | None) -> float | None:
    return None if loss is None else loss / _PAIR


def _setting(value: Any) -> Any:
    """A setting as JSON can hold it."""
    if isinstance(value, bool | int | type(None)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)[:200]
