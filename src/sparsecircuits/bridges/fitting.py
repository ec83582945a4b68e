"""Where bridges begin: the affine maps of least squared error between two models as they are, in closed form."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsecircuits.bridges.bridge import Bridge

RIDGE = 1e-6
"""Share of the inputs' mean variance that is added to each direction's: what the text never varies is left alone."""


class _Moments:
    """Sums over rows of x and y, of their squares and products, in float64."""

    def __init__(self, d_x: int, d_y: int) -> None:
        shapes = (d_x,), (d_y,), (d_x, d_x), (d_y, d_y), (d_x, d_y)
        self.count = 0
        self.x, self.y, self.xx, self.yy, self.xy = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)

    def add(self, x: Float[Tensor, "rows X"], y: Float[Tensor, "rows Y"]) -> None:
        x, y = x.double().cpu(), y.double().cpu()
        self.count += len(x)
        self.x, self.y = self.x + x.sum(dim=0), self.y + y.sum(dim=0)
        self.xx, self.yy, self.xy = self.xx + x.T @ x, self.yy + y.T @ y, self.xy + x.T @ y


@torch.no_grad()
def fit_maps_(bridge: Bridge, batches: Iterable[np.ndarray]) -> None:
    """Set all encoders and decoders to the ridge regressions between the two models' residual streams, AbsTopK left out
    of account. batches: token ids [B, T] each."""
    d_dense, d_sparse = bridge.dense.config.d_model, bridge.sparse.config.d_model
    moments = [_Moments(d_dense, d_sparse) for _ in range(bridge.places)]
    for batch in batches:
        ids = torch.from_numpy(batch).to(bridge.sparse.device)
        pairs = zip(bridge.streams("dense", ids), bridge.streams("sparse", ids), strict=True)
        for place, (dense, sparse) in enumerate(pairs):
            moments[place].add(dense.flatten(0, 1), sparse.flatten(0, 1))
    for place, found in enumerate(moments):
        encoder = bridge.maps.encoders[place]
        assert isinstance(encoder, nn.Linear)
        _solve_(encoder, found.count, found.x, found.y, found.xx, found.xy)
        _solve_(bridge.maps.decoder(place), found.count, found.y, found.x, found.yy, found.xy.T)


@torch.no_grad()
def turn_maps_(bridge: Bridge, rotation: Float[Tensor, "D D"]) -> None:
    """Set all decoders to a rotation and all encoders to its inverse: exact between a model and itself in a rotated
    basis (`planted.models.rotated`)."""
    for place, encoder in enumerate(bridge.maps.encoders):
        assert isinstance(encoder, nn.Linear)
        for layer, weight in ((encoder, rotation.T), (bridge.maps.decoder(place), rotation)):
            layer.weight.copy_(weight)
            layer.bias.zero_()


def _solve_(layer: nn.Linear, count: int, x: Tensor, y: Tensor, xx: Tensor, xy: Tensor) -> None:
    """weight, bias = argmin |weight x + bias - y|² + ridge, from sums over `count` rows."""
    mean_x, mean_y = x / count, y / count
    variance = xx / count - torch.outer(mean_x, mean_x)
    covariance = xy / count - torch.outer(mean_x, mean_y)
    ridge = RIDGE * variance.diagonal().mean().clamp(min=1e-12)
    weight = torch.linalg.solve(variance + ridge * torch.eye(len(x), dtype=torch.float64), covariance).T
    layer.weight.copy_(weight)
    layer.bias.copy_(mean_y - weight @ mean_x)
