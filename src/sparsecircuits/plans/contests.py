"""AbsTopK at a site of a circuit, where almost all channels are constants: who a kept channel has to beat."""

from dataclasses import dataclass

import numpy as np

from sparsecircuits.models.config import Activation
from sparsecircuits.models.names import split_site
from sparsecircuits.plans.plan import Plan, Product


@dataclass(frozen=True)
class Mass:
    """A head with a sink whose queries and keys are all frozen: its keys get n / (n + gap) of the attention at the n-th
    position, where the latest count as much as `near` says and not as one each."""

    head: int
    gap: float
    near: tuple[float, ...] = ()

    def at(self, positions: int) -> np.ndarray:
        """[positions]."""
        by_offset = np.ones(positions)
        by_offset[: len(self.near)] = self.near[:positions]
        n = np.cumsum(by_offset)
        share: np.ndarray = n / (n + self.gap)
        return share


@dataclass(frozen=True)
class SitePlan:
    """What a site's kept channels are: sums over the inputs that vary, and which of these AbsTopK lets through.

    kept: channels [C]. weights [R, inputs], constants [n_ctx or 1, R]: sums of the kept channels first, then of all
    others that vary, their rivals. slots: how many of the R and of the `fixed` magnitudes [n_ctx or 1, R] together are
    let through; None where all are. inputs: names of what varies, in order.
    """

    site: str
    kept: np.ndarray
    inputs: tuple[str, ...]
    weights: np.ndarray
    constants: np.ndarray
    fixed: np.ndarray
    slots: int | None


def running_heads(plan: Plan, layer: int) -> list[int]:
    """Heads whose output varies: with kept values, or with a sink where the pattern varies too."""
    sites = "qkv" if plan.config.sink else "v"
    kept = np.concatenate([plan.varying[f"{layer}.attn.{name}"] for name in sites])
    return [int(head) for head in np.unique(kept // plan.config.d_head)]


def idle_masses(plan: Plan, layer: int) -> list[Mass]:
    """The other heads, with sinks."""
    size, sinks = plan.config.d_head, plan.vector(f"blocks.{layer}.attn.sink_logit")
    if sinks is None:
        return []
    q, k = (plan.frozen[f"{layer}.attn.{name}"].reshape(-1, size).astype(np.float64) for name in "qk")
    scores = (q * k).sum(axis=1) / np.sqrt(size)
    running = running_heads(plan, layer)
    offsets = plan.vector(f"blocks.{layer}.attn.offset_logit")
    near = (
        [()] * len(scores) if offsets is None else [tuple(np.exp(row.astype(np.float64)).tolist()) for row in offsets]
    )
    return [Mass(h, float(np.exp(sinks[h] - s)), near[h]) for h, s in enumerate(scores) if h not in running]


def site_plan(plan: Plan, target: str, positions: int | None = None) -> SitePlan:
    """The plan of a site with kept channels (attn.q, k, v and resid_delta, mlp.post_act and resid_delta). positions:
    how many there are at most, by default n_ctx."""
    product, config = plan.products[target], plan.config
    layer, site = split_site(target)
    assert layer is not None
    dense = np.zeros((len(product.constant), len(product.columns)))
    dense[product.rows[product.matrix.rows], product.matrix.columns] = product.matrix.values
    constants = product.constant[None]
    inputs = tuple(f"{product.source}.{column}" for column in product.columns)
    if product.carried is not None:
        constants, dense, inputs = _with_sinks(plan, product, layer, dense, inputs, positions or config.n_ctx)
    k = config.abstopk_k(site)
    varies = (dense != 0).any(axis=1)
    kept = plan.varying[target]
    rivals = np.setdiff1d(varies.nonzero()[0], kept) if k is not None else kept[:0]
    rows = np.concatenate((kept, rivals))
    fixed, slots = np.zeros((1, 0)), None
    if k is not None and k < len(product.constant):
        still = np.setdiff1d(np.arange(len(product.constant)), rows)
        sizes = -np.sort(-np.abs(activated(constants[:, still], config.activation, site)), axis=1)
        # Among the k largest are at least the k - R largest of those that stay: the others contest what is left.
        certain = max(0, k - len(rows))
        fixed, slots = sizes[:, certain : min(k, sizes.shape[1])], min(k, len(rows))
        nonzero = int((sizes != 0).any(axis=0).sum()) + len(rows)
        if nonzero <= k:
            fixed, slots = np.zeros((1, 0)), None
    if slots is None:
        rows = kept
    return SitePlan(target, kept, inputs, dense[rows], constants[:, rows], fixed, slots)


def _with_sinks(
    plan: Plan, product: Product, layer: int, dense: np.ndarray, inputs: tuple[str, ...], positions: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(constants by position, weights, inputs) where each head carries frozen values by what its sink leaves."""
    assert product.carried is not None
    running = running_heads(plan, layer)
    constants = np.broadcast_to(product.constant, (positions, len(product.constant))).copy()
    for mass in idle_masses(plan, layer):
        constants += mass.at(positions)[:, None] * product.carried[:, mass.head]
    names = tuple(f"{layer}.attn.mass.{head}" for head in running)
    return constants, np.concatenate((dense, product.carried[:, running]), axis=1), (*inputs, *names)


def activated(x: np.ndarray, activation: Activation, site: str) -> np.ndarray:
    """What a site applies before AbsTopK: the activation function, at mlp.post_act."""
    if site != "mlp.post_act":
        return x
    import torch

    from sparsecircuits.models import sites

    found: np.ndarray = sites.activated(torch.from_numpy(np.ascontiguousarray(x)), activation).numpy()
    return found
