"""A matrix as its nonzeros, and a model's weights as these without a dense matrix."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsecircuits.kernels import Held, Pattern
from sparsecircuits.models.storage import Stored


@dataclass(frozen=True)
class Nonzeros:
    """A matrix [rows, columns] as its nonzeros, row by row: each one's row, column and value, all [n]."""

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def at(cls, shape: tuple[int, int], places: np.ndarray, values: np.ndarray) -> "Nonzeros":
        """From flat places, ascending, and values; zeros among these are dropped."""
        there = values != 0
        places = places[there].astype(np.int64)
        rows, columns = places // shape[1], places % shape[1]
        return cls(shape, rows.astype(np.int32), columns.astype(np.int32), values[there].astype(np.float32))

    @classmethod
    def of(cls, weight: Tensor | Stored) -> "Nonzeros":
        """Of a dense matrix, or of one as it is stored."""
        if isinstance(weight, Stored):
            shape = weight.shape[0], weight.shape[1]
            return cls.at(shape, weight.indices.numpy(), weight.values.float().numpy())
        dense = weight.detach().cpu().float()
        places = dense.flatten().nonzero().flatten()
        return cls.at((dense.shape[0], dense.shape[1]), places.numpy(), dense.flatten()[places].numpy())

    @classmethod
    def stack(cls, parts: list["Nonzeros"]) -> "Nonzeros":
        """Matrices of one width, one under the other."""
        offsets = np.cumsum([0, *(part.shape[0] for part in parts)])
        rows = [part.rows + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
        return cls(
            (int(offsets[-1]), parts[0].shape[1]),
            np.concatenate(rows).astype(np.int32),
            np.concatenate([part.columns for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    def split(self, count: int) -> list["Nonzeros"]:
        """The inverse of `stack`, for parts of equal height."""
        height = self.shape[0] // count
        ends = np.searchsorted(self.rows, np.arange(count + 1) * height)
        return [
            Nonzeros((height, self.shape[1]), self.rows[a:b] - k * height, self.columns[a:b], self.values[a:b])
            for k, (a, b) in enumerate(itertools.pairwise(ends))
        ]

    def part(self, rows: np.ndarray, columns: np.ndarray) -> "Nonzeros":
        """The matrix at some rows and columns, each in ascending order."""
        place = {}
        for name, size, chosen in (("rows", self.shape[0], rows), ("columns", self.shape[1], columns)):
            place[name] = np.full(size, -1, dtype=np.int32)
            place[name][chosen] = np.arange(len(chosen), dtype=np.int32)
        row, column = place["rows"][self.rows], place["columns"][self.columns]
        there = (row >= 0) & (column >= 0)
        return Nonzeros((len(rows), len(columns)), row[there], column[there], self.values[there])

    def times(self, x: np.ndarray) -> np.ndarray:
        """x [..., columns] · matrixᵀ -> [..., rows], in x's type."""
        out = np.zeros((*x.shape[:-1], self.shape[0]), dtype=x.dtype)
        flat, source = out.reshape(-1, self.shape[0]), x.reshape(-1, self.shape[1])
        for row, column, value in zip(self.rows, self.columns, self.values, strict=True):
            flat[:, row] += source[:, column] * value
        return out

    def transposed(self) -> "Nonzeros":
        """The same matrix with rows and columns in each other's place."""
        order = np.argsort(self.columns, kind="stable")
        shape = self.shape[1], self.shape[0]
        return Nonzeros(shape, self.columns[order], self.rows[order], self.values[order])

    def starts(self) -> np.ndarray:
        """Where each row begins among the nonzeros, and their number: int64[rows + 1]."""
        return np.concatenate(([0], np.cumsum(np.bincount(self.rows, minlength=self.shape[0])))).astype(np.int64)

    def held(self) -> Held:
        """What layers compute with in the place of a dense weight."""
        places = self.rows.astype(np.int64) * self.shape[1] + self.columns
        return Held(Pattern.at(self.shape, torch.from_numpy(places)), torch.from_numpy(self.values))


Weights = Mapping[str, Tensor | Stored]
"""A model's tensors by name, each dense or as it is stored."""
