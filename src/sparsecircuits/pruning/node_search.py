"""How every search for nodes begins, of `prune` and of the null controls alike: what judges sets, and a ranking."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import unbiased
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.learned_gates import Report
from sparsecircuits.pruning.ranking import rank_nodes
from sparsecircuits.tasks import Task


@dataclass(frozen=True)
class NodeSearch:
    """A task and the loss in nats to hold; sets are judged on training and validation prompts."""

    task: Task
    config: PruneConfig
    target_loss: float
    evaluate: Evaluator
    forbidden: Bool[Tensor, " nodes"] | None = None
    """Nodes that stay frozen in every set; by default none."""

    @classmethod
    def of(
        cls,
        model: SparseTransformer,
        task: Task,
        frozen: Float[Tensor, " nodes"],
        target_loss: float,
        config: PruneConfig,
        forbidden: Bool[Tensor, " nodes"] | None = None,
    ) -> "NodeSearch":
        """A search in a model. frozen: the ablation values."""
        splits = (task.batch(split, config.eval_pairs, config.seed) for split in ("train", "validation"))
        return cls(task, config, target_loss, Evaluator(model, frozen, *splits, ablation=config.carried), forbidden)

    @property
    def goal(self) -> float:
        """The loss that a size is chosen for: less than the target, so that prompts of other templates hold it too."""
        return self.config.margin * self.target_loss

    def ranking(self, report: Report | None = None) -> Float[Tensor, " nodes"]:
        """A score per node, by the config's method (see `rank_nodes`); -inf for forbidden nodes."""
        evaluate, allowed = self.evaluate, None if self.forbidden is None else ~self.forbidden
        through = unbiased(evaluate.model, evaluate.batches[0], self.target_loss)
        tau = rank_nodes(evaluate.model, self.task, evaluate.frozen, self.config, self.goal, report, through, allowed)
        return tau if allowed is None else tau.masked_fill(~allowed, -torch.inf)
