"""A model in which every node is a constant, and the plans of those sets of its nodes that vary nevertheless."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsecircuits.plans.nonzeros import Nonzeros
from sparsecircuits.plans.plan import Plan, Product

Off = Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
"""Edges between kept nodes that are off, by (source site, target site): (rows, columns)."""


class Narrowing:
    """What is the same for all sets: the whole plan's matrices by column, and what they add when everything is frozen.

    frozen: what a node that is not kept carries, [width] by site. A kept one that the model itself freezes
    (`ModelConfig.frozen_nodes`) carries the model's constant. A set costs what its own nodes and edges do.
    """

    def __init__(self, whole: Plan, frozen: Mapping[str, np.ndarray]) -> None:
        self.whole, self.frozen = whole, dict(frozen)
        self._free = {site: _mask(channels, len(frozen[site])) for site, channels in whole.varying.items()}
        heads = whole.config.heads if whole.config.sink else 0
        self._columns = {
            target: _Columns.of(
                product, self.frozen[product.source], heads if target.endswith("attn.resid_delta") else 0
            )
            for target, product in whole.products.items()
        }

    def plan(self, kept: Mapping[str, np.ndarray], off: Off) -> Plan:
        """The plan of a set. kept: masks [width] by site."""
        varying = {site: (mask & self._free[site]).nonzero()[0] for site, mask in kept.items()}
        frozen = {
            site: np.where(mask & ~self._free[site], self.whole.frozen[site], self.frozen[site])
            for site, mask in kept.items()
        }
        products = {}
        for target, product in self.whole.products.items():
            if len(varying[target]):
                source, nothing = product.source, (np.zeros(0, int), np.zeros(0, int))
                products[target] = self._columns[target].narrowed(
                    product,
                    kept[source].nonzero()[0],
                    self._free[source],
                    (self.frozen[source], frozen[source]),
                    varying[target],
                    off.get((source, target), nothing),
                )
        return replace(self.whole, products=products, varying=varying, frozen=frozen)


@dataclass(frozen=True)
class _Columns:
    """A matrix by column, and what all of it adds to its target at frozen values: the constant [height]; what heads
    carry past their sinks, [height, H], where there are these."""

    matrix: Nonzeros
    starts: np.ndarray
    constant: np.ndarray
    carried: np.ndarray | None

    @classmethod
    def of(cls, product: Product, frozen: np.ndarray, heads: int) -> "_Columns":
        by_column = product.matrix.transposed()
        added = by_column.values * frozen.astype(np.float64)[by_column.rows]
        constant, height = product.constant.astype(np.float64), product.matrix.shape[0]
        if not heads:
            constant = constant + np.bincount(by_column.columns, added, height)
            return cls(by_column, by_column.starts(), constant, None)
        head = by_column.rows // (by_column.shape[0] // heads)
        place = by_column.columns.astype(np.int64) * heads + head
        carried = np.bincount(place, added, height * heads).reshape(height, heads)
        return cls(by_column, by_column.starts(), constant, carried)

    def narrowed(
        self,
        product: Product,
        kept: np.ndarray,
        free: np.ndarray,
        frozen: tuple[np.ndarray, np.ndarray],
        targets: np.ndarray,
        off: tuple[np.ndarray, np.ndarray],
    ) -> Product:
        """The product of whose source only the kept channels that are free vary, over all rows that any of them
        reaches and the targets. frozen: what the source carries where it is off, and where it does not vary."""
        counts = self.starts[kept + 1] - self.starts[kept]
        begins = np.repeat(self.starts[kept] - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        here = np.arange(int(counts.sum())) + begins
        height = self.matrix.shape[1]
        rows, values = self.matrix.columns[here], self.matrix.values[here]
        columns = np.repeat(kept, counts)
        removed = np.zeros(len(here), dtype=bool)
        if len(off[0]):
            removed[np.searchsorted(columns * height + rows, off[1] * height + off[0])] = True
        live = free[columns] & ~removed
        carried, constant = self.carried, self.constant.copy()
        instead, still = (part.astype(np.float64)[columns] for part in frozen)
        was, now = values * instead, values * np.where(live, 0.0, still)
        if carried is None:
            change = np.where(removed, 0.0, now - was)
            constant += np.bincount(rows, change, height)
        else:  # an edge that is off carries all of its source's value, past no sink
            heads = carried.shape[1]
            place = rows.astype(np.int64) * heads + columns // (self.matrix.shape[0] // heads)
            change = np.where(removed, 0.0, now) - was
            carried = carried + np.bincount(place, change, height * heads).reshape(height, heads)
            constant += np.bincount(rows, np.where(removed, was, 0.0), height)
        rows, columns, values = rows[live], columns[live], values[live]
        order = np.argsort(rows, kind="stable")
        matrix = Nonzeros(product.matrix.shape, rows[order], columns[order].astype(np.int32), values[order])
        varying, reached = kept[free[kept]], np.union1d(targets, rows)
        return Product(
            product.source, product.target, reached, varying, matrix.part(reached, varying), constant, carried
        )


def _mask(channels: np.ndarray, width: int) -> np.ndarray:
    mask = np.zeros(width, dtype=bool)
    mask[channels] = True
    return mask
