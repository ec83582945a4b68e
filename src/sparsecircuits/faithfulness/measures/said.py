"""Whether a model says the answers at all.

The loss of a task compares two tokens with each other alone, and calibrates them; it can be small where the model would
never say either. What layers carry leaks into the logits of tokens that have nothing to do with it. A circuit for that
explains nothing that the model does.
"""

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.nodes.task_loss import correct_of, pick_answers
from sparsecircuits.tasks import PairBatch

Answers = tuple[int, int]
"""Token ids."""


class Said(BaseModel):
    """How likely the whole model finds the right answers, among all tokens and not calibrated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    probability: float
    """The mean over prompts."""
    chance: float
    """One in the vocabulary."""

    @property
    def ever(self) -> bool:
        """Whether they are likelier than a token drawn at random."""
        return self.probability >= self.chance


def said(logits: Float[Tensor, "n vocab"], batch: PairBatch) -> Said:
    """What the model's logits at the last token say of the right answers."""
    picked = pick_answers(logits, batch).float()
    right = picked.gather(1, correct_of(batch, picked.device)[:, None])[:, 0]
    likely = (right - logits.float().logsumexp(dim=1)).exp().mean().item()
    return Said(probability=likely, chance=1 / logits.shape[1])


def never_said(probabilities: Float[Tensor, "n vocab"], answers: Answers) -> Int[np.ndarray, " tokens"]:
    """Tokens that are less likely than chance, in the mean over prompts. Never the task's answers."""
    unlikely = probabilities.mean(dim=0) < 1 / probabilities.shape[1]
    unlikely[list(answers)] = False
    found: np.ndarray = unlikely.nonzero().flatten().cpu().numpy()
    return found
