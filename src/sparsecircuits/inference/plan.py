"""The plan of what varies when a model runs, or a circuit in it: for each matrix the rows, columns and values that the
input can change, and as one constant all else."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.errors import UserError
from sparsecircuits.inference.nonzeros import Nonzeros, Weights
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.names import node_sites, split_site
from sparsecircuits.models.storage import Stored
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.topology import MATRICES


@dataclass(frozen=True)
class Product:
    """What leads into a site: matrix [rows, columns] times the source's channels that vary, plus a constant [width].

    rows, columns: which channels of target and source these are; other rows are the constant, which holds the bias and
    what everything that is frozen adds. What heads carry of frozen values is not in it but in `carried` [width, H],
    where sinks take a share of that: it is to be multiplied by what each head's keys get of its attention.
    """

    source: str
    target: str
    rows: np.ndarray
    columns: np.ndarray
    matrix: Nonzeros
    constant: np.ndarray
    carried: np.ndarray | None = None


@dataclass(frozen=True)
class Plan:
    """What of a model varies with its input.

    products: by target site, without those into sites of which nothing varies. varying: channels by site whose
    activation the input can change, all others carry `frozen` [width]. tensors: what is not sparse (norms, sinks,
    positions, a dense bigram table), by the model's names.
    """

    config: ModelConfig
    products: dict[str, Product]
    varying: dict[str, np.ndarray]
    frozen: dict[str, np.ndarray]
    embedding: Nonzeros
    unembedding: Nonzeros
    bigram: Nonzeros | None
    tensors: dict[str, Tensor]

    @classmethod
    def of_model(cls, model: SparseTransformer) -> "Plan":
        """Everything varies."""
        plan = cls.of_weights(model.config, model.state_dict())
        # The model may be trained on: what is not copied yet must not be its memory.
        return replace(plan, tensors={name: tensor.clone() for name, tensor in plan.tensors.items()})

    @classmethod
    def of_weights(cls, config: ModelConfig, weights: Weights) -> "Plan":
        """The same of a model's tensors, without a dense matrix where they are stored without. Raises UserError for a
        model with frozen nodes."""
        if config.frozen_nodes:
            raise UserError(
                "this model has nodes that are constants for good (it was edited), which the sparse runtime and "
                "programs do not know yet: run it as it is"
            )
        products: dict[str, Product] = {}
        for layer in range(config.n_layer):
            for name, (source, targets) in MATRICES.items():
                module = f"blocks.{layer}.{name}"
                parts = Nonzeros.of(weights[f"{module}.weight"]).split(len(targets))
                bias = weights.get(f"{module}.bias")
                height = parts[0].shape[0]
                for place, (target, part) in enumerate(zip(targets, parts, strict=True)):
                    constant = np.zeros(height, np.float32)
                    if bias is not None:
                        constant = _dense(bias).numpy()[place * height : (place + 1) * height].copy()
                    rows, columns = (np.arange(size, dtype=np.int32) for size in part.shape)
                    product = Product(f"{layer}.{source}", f"{layer}.{target}", rows, columns, part, constant)
                    products[product.target] = product
        varying = {site: np.arange(config.site_width(split_site(site)[1])) for site in node_sites(config.n_layer)}
        frozen = {site: np.zeros(len(channels), np.float32) for site, channels in varying.items()}
        bigram = weights.get("bigram.weight")
        sparse = bigram is not None and not isinstance(bigram, Tensor)
        skipped = {"wte.weight", "lm_head.weight", *(["bigram.weight"] if sparse else [])}
        skipped |= {name for name in weights if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))}
        return cls(
            config,
            products,
            varying,
            frozen,
            Nonzeros.of(weights["wte.weight"]),
            Nonzeros.of(weights["lm_head.weight"]),
            Nonzeros.of(bigram) if sparse and bigram is not None else None,
            {name: _dense(part) for name, part in weights.items() if name not in skipped},
        )

    @classmethod
    def of_circuit(cls, bound: Bound) -> "Plan":
        """A circuit alone: its nodes vary; every other one carries its ablation value, and so does what an edge that
        the circuit lacks brings."""
        whole = cls.of_model(bound.model)
        kept = {site: mask.numpy().nonzero()[0] for site, mask in bound.space.split(bound.kept).items()}
        frozen = {site: values.numpy() for site, values in bound.space.split(bound.frozen).items()}
        removed: dict[tuple[str, str], list[tuple[int, int]]] = {}
        sites = sorted((place.start, site) for site, place in bound.space.slices.items())
        begins = np.array([start for start, _ in sites])
        for source, target in zip(bound.removed.source.tolist(), bound.removed.target.tolist(), strict=True):
            a, b = (int(np.searchsorted(begins, node, side="right")) - 1 for node in (source, target))
            pair = sites[a][1], sites[b][1]
            removed.setdefault(pair, []).append((target - sites[b][0], source - sites[a][0]))
        heads = bound.model.config.heads if bound.model.config.sink else 0
        products = {}
        for target, product in whole.products.items():
            if len(kept[target]):
                through = heads if target.endswith("attn.resid_delta") else 0
                off = removed.get((product.source, target), [])
                products[target] = _narrowed(product, kept, frozen, off, through)
        return cls(
            whole.config, products, kept, frozen, whole.embedding, whole.unembedding, whole.bigram, whole.tensors
        )

    @cached_property
    def nonzeros(self) -> int:
        """Weights that run."""
        return sum(len(product.matrix) for product in self.products.values()) + len(self.unembedding)

    def vector(self, name: str) -> np.ndarray | None:
        """One of `tensors` as an array, or None."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.numpy()


def _dense(part: Tensor | Stored) -> Tensor:
    whole = part.dense() if isinstance(part, Stored) else part.detach()
    return whole.cpu().float().contiguous()


def _narrowed(
    product: Product,
    kept: dict[str, np.ndarray],
    frozen: dict[str, np.ndarray],
    off: Iterable[tuple[int, int]],
    heads: int,
) -> Product:
    """A product of whose source only the kept channels vary, over all rows that any of them reaches and those kept.
    off: (row, column) of weights whose source carries its frozen value. heads: with sinks, how many carry it."""
    columns, values = kept[product.source], frozen[product.source]
    whole = product.matrix
    removed = np.zeros(len(whole), dtype=bool)
    width = whole.shape[1]
    flat = whole.rows.astype(np.int64) * width + whole.columns
    for row, column in off:
        removed[np.searchsorted(flat, row * width + column)] = True
    is_kept = np.zeros(width, dtype=bool)
    is_kept[columns] = True
    varies = is_kept[whole.columns] & ~removed
    constant = product.constant.astype(np.float64)
    added = whole.values.astype(np.float64) * values[whole.columns]
    still, carried = ~varies, None
    if heads:
        still, through = removed, ~varies & ~removed
        carried = np.zeros((len(constant), heads))
        head = whole.columns // (width // heads)
        np.add.at(carried, (whole.rows[through], head[through]), added[through])
    np.add.at(constant, whole.rows[still], added[still])
    rows = np.union1d(kept[product.target], whole.rows[varies])
    live = Nonzeros(whole.shape, whole.rows[varies], whole.columns[varies], whole.values[varies])
    return Product(product.source, product.target, rows, columns, live.part(rows, columns), constant, carried)
