"""What a node that is off carries: the kinds, by name. Free of torch."""

from typing import Literal, get_args

Ablation = Literal["mean", "zero", "resample"]
ABLATIONS: tuple[str, ...] = get_args(Ablation)
