"""How every search for nodes begins, of `prune` and of the null controls alike: what judges sets, and a ranking."""

from dataclasses import dataclass

from jaxtyping import Float
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

    @classmethod
    def of(
        cls,
        model: SparseTransformer,
        task: Task,
        frozen: Float[Tensor, " nodes"],
        target_loss: float,
        config: PruneConfig,
    ) -> "NodeSearch":
        """A search in a model. frozen: the ablation values."""
        splits = (task.batch(split, config.eval_pairs, config.seed) for split in ("train", "validation"))
        return cls(task, config, target_loss, Evaluator(model, frozen, *splits, ablation=config.ablation))

    @property
    def goal(self) -> float:
        """The loss that a size is chosen for: less than the target, so that prompts of other templates hold it too."""
        return self.config.margin * self.target_loss

    def ranking(self, report: Report | None = None) -> Float[Tensor, " nodes"]:
        """A score per node, by the config's method (see `rank_nodes`)."""
        evaluate = self.evaluate
        through = unbiased(evaluate.model, evaluate.batches[0], self.target_loss)
        return rank_nodes(evaluate.model, self.task, evaluate.frozen, self.config, self.goal, report, through)
