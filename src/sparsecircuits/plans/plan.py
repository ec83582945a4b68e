"""The plan of what varies when a model runs, or a circuit in it: for each matrix the rows, columns and values that the
input can change, and as one constant all else."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.names import MATRICES, node_sites, split_site
from sparsecircuits.models.storage import Stored
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.plans.nonzeros import Nonzeros, Weights


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
        """The same of a model's tensors, without a dense matrix where they are stored without. In a model with frozen
        nodes (`ModelConfig.frozen_nodes`) these do not vary; its products are whole all the same."""
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
        varying, frozen = {}, {}
        for site in node_sites(config.n_layer):
            width, module = config.site_width(split_site(site)[1]), _module(site)
            varying[site], frozen[site] = np.arange(width), np.zeros(width, np.float32)
            if config.frozen_nodes:
                gate, constants = (_dense(weights[f"{module}.{name}"]).numpy() for name in ("gate", "frozen"))
                varying[site], frozen[site] = gate.nonzero()[0], np.where(gate != 0, np.float32(0), constants)
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

    @cached_property
    def nonzeros(self) -> int:
        """Weights that run."""
        return sum(len(product.matrix) for product in self.products.values()) + len(self.unembedding)

    def vector(self, name: str) -> np.ndarray | None:
        """One of `tensors` as an array, or None."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.numpy()


def _module(site: str) -> str:
    """A site's name among the model's modules."""
    return site if split_site(site)[0] is None else f"blocks.{site}"


def _dense(part: Tensor | Stored) -> Tensor:
    whole = part.dense() if isinstance(part, Stored) else part.detach()
    return whole.cpu().float().contiguous()
