"""`train_bridge`: a sparse model and its bridges, coupled to a frozen dense model; resumable to the bit."""

import json
import math
import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecircuits.bridges.bridge import Bridge, Joined
from sparsecircuits.bridges.config import BridgeConfig
from sparsecircuits.bridges.fitting import fit_maps_
from sparsecircuits.bridges.losses import bridge_losses
from sparsecircuits.bridges.measures import measure_bridge
from sparsecircuits.bridges.record import RECORD_NAME
from sparsecircuits.bridges.storage import save_bridge
from sparsecircuits.data import TokenData, Tokenizer, open_sampler, validation_batches
from sparsecircuits.errors import Interrupted, UserError
from sparsecircuits.files import read_json, sweep, write_text
from sparsecircuits.kernels import project_topk_
from sparsecircuits.locks import LOCK_NAME, locked
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.runs import CHECKPOINTS
from sparsecircuits.seeds import derived_seed
from sparsecircuits.training.checkpoints import load_checkpoint, save_checkpoint
from sparsecircuits.training.interrupts import Interrupts
from sparsecircuits.training.metrics import MetricsLog

WARM_UP = 0.05
RUN_NAME = "training.json"
"""What a bridge's training was started with."""
Report = Callable[[float, str], None]


def train_bridge(
    dense: SparseTransformer,
    sparse: SparseTransformer,
    out: str | Path,
    tokens: TokenData,
    config: BridgeConfig | None = None,
    *,
    dense_path: str = "",
    resume: bool = False,
    report: Report | None = None,
) -> Bridge:
    """Train bridges, and the sparse model with them, into a folder, and return what `load_bridge` would load.

    The dense model is frozen. No matrix of the sparse model ever has more nonzeros than it came with: after each step
    the largest are kept. The maps begin as least-squares fits (`config.fit_tokens`). tokens: training draws from
    them, and the finished bridge is measured on their validation split. dense_path: where `load_bridge` finds the dense
    model again; by default its folder. resume: go on from the newest checkpoint with the saved config; the models are
    given as they were at first, and the run ends with the weights of an uninterrupted one.

    Raises UserError for models that no bridge can join, a folder that holds another bridge, or a loss that is not
    finite.
    """
    out = Path(out)
    with locked(out / LOCK_NAME, f"a training into {out}"):
        started = _started(dense, sparse, dense_path or str(dense.folder or dense.name))
        if resume:
            config = _resumed(out, started)
        elif (out / RUN_NAME).exists() or (out / RECORD_NAME).exists():
            raise UserError(f"{out} already holds a bridge: choose another --out, or go on with --resume")
        config = config or BridgeConfig()
        run = _BridgeRun(dense, sparse, out, tokens, config)
        if not resume:
            write_text(out / RUN_NAME, json.dumps({**started, "config": config.to_dict()}, indent=1) + "\n")
        bridge = run.train(resume, report)
        measures = measure_bridge(bridge, tokens.val, max_tokens=config.eval_tokens, seed=config.seed)
        save_bridge(bridge, out, started["dense"], {"config": config.to_dict(), "measures": measures})
        return bridge


def _started(dense: SparseTransformer, sparse: SparseTransformer, dense_path: str) -> dict[str, Any]:
    return {"dense": dense_path, "dense_id": content_hash(dense), "sparse_id": content_hash(sparse)}


def started_seed(out: Path) -> int:
    """The seed that a bridge's training was started with. Raises UserError for a folder without one."""
    return BridgeConfig.from_dict(_saved(out)["config"]).seed


def _saved(out: Path) -> dict[str, Any]:
    saved = read_json(out / RUN_NAME, "bridge's training")
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise UserError(f"{out / RUN_NAME} is damaged: start anew with another --out")
    return saved


def _resumed(out: Path, started: dict[str, Any]) -> BridgeConfig:
    """The config that a run was started with. Raises UserError where the models are not those of then."""
    saved = _saved(out)
    for name in ("dense_id", "sparse_id"):
        if saved.get(name) != started[name]:
            raise UserError(f"{out} was started with another {name.removesuffix('_id')} model: give that one")
    return BridgeConfig.from_dict(saved["config"])


class _BridgeRun:
    """One training's moving parts; `train` is its only entrance."""

    def __init__(
        self, dense: SparseTransformer, sparse: SparseTransformer, out: Path, tokens: TokenData, config: BridgeConfig
    ) -> None:
        torch.manual_seed(config.seed)
        share = config.encoder_afrac
        kept = None if share is None else max(1, math.floor(share * sparse.config.d_model))
        joined = Joined.parse(config.places) if config.places else None
        self.bridge = Bridge.between(dense, sparse, kept, joined)
        self.out, self.config, self.tokens = out, config, tokens
        if config.boundaries is not None and config.boundaries > self.bridge.places:
            raise UserError(f"boundaries is {config.boundaries}: the models are joined at {self.bridge.places}")
        learned = [p for p in sparse.parameters() if p.requires_grad] if config.sparse_lr else []
        if not config.sparse_lr:
            sparse.requires_grad_(False)
        self.budgets = {name: int(matrix.count_nonzero()) for name, matrix in sparse_matrices(sparse).items()}
        groups = [{"params": list(self.bridge.maps.parameters()), "peak": config.lr}]
        groups += [{"params": learned, "peak": config.sparse_lr}] if learned else []
        self.learned: list[Tensor] = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.sampler = open_sampler(
            tokens, sparse.tokenizer or Tokenizer.default(), self.bridge.n_ctx, config.batch_size, config.seed
        )
        self.step = 0

    def train(self, resume: bool, report: Report | None) -> Bridge:
        for folder in (self.out, self.out / CHECKPOINTS):
            sweep(folder)
        restored = self._restore() if resume else False
        if not restored and self.config.fit_tokens:
            if report is not None:
                report(0.0, "fitting the maps by least squares")
            begin = validation_batches(self.tokens.train, self.bridge.n_ctx, 32, self.config.fit_tokens)
            fit_maps_(self.bridge, (inputs for inputs, _ in begin))
        log = MetricsLog(self.out, self.step if restored else None)
        try:
            with Interrupts() as interrupts:
                while self.step < self.config.steps:
                    values = self._take_step()
                    if self.step % self.config.log_every == 0 or self.step == 1:
                        log.write(step=self.step, **values)
                    if report is not None:
                        report(self.step / self.config.steps, _described(self.step, values))
                    stop = interrupts.asked
                    if stop or self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                        self._checkpoint()
                    if stop:
                        again = f"sparsecircuits bridge DENSE SPARSE --out {shlex.quote(str(self.out))} --resume"
                        saved = f"interrupted, the checkpoint of step {self.step} is saved"
                        raise Interrupted(f"{saved}: go on with `{again}`", stop)
        finally:
            log.close()
        self.bridge.maps.eval()
        self.bridge.sparse.eval()
        return self.bridge

    def _take_step(self) -> dict[str, float]:
        """One step; its losses, sums over places."""
        config, device = self.config, self.bridge.sparse.device
        inputs, targets = (torch.from_numpy(x).to(device) for x in self.sampler.next())
        losses = bridge_losses(self.bridge, inputs, targets, self._chosen())
        total = config.nmse * losses.nmse + config.kl_to_sparse * losses.kl_to_sparse
        total = total + config.kl_to_dense * losses.kl_to_dense + config.pretraining * losses.pretraining
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learned, config.clip)
        if not bool(torch.isfinite(total)) or not bool(torch.isfinite(norm)):
            raise UserError(f"training diverged at step {self.step + 1}: lower lr or sparse_lr")
        scale = _schedule(self.step / config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = scale * group["peak"]
        self.optimizer.step()
        self._project()
        self.step += 1
        return {
            "loss": total.item(),
            "nmse": losses.nmse.item(),
            "kl_to_sparse": losses.kl_to_sparse.item(),
            "kl_to_dense": losses.kl_to_dense.item(),
            "pretraining": losses.pretraining.item(),
            "grad_norm": norm.item(),
            "lr": scale * config.lr,
        }

    def _chosen(self) -> list[int]:
        """The places of this step, by a seed of its own: a resumed run draws the same."""
        everything = range(self.bridge.places)
        if self.config.boundaries is None:
            return list(everything)
        return sorted(
            random.Random(derived_seed(self.config.seed, self.step)).sample(everything, self.config.boundaries)
        )

    @torch.no_grad()
    def _project(self) -> None:
        """Keep as many of each matrix's weights as it came with: the largest."""
        if self.config.sparse_lr:
            for name, matrix in sparse_matrices(self.bridge.sparse).items():
                project_topk_(matrix.data, self.budgets[name])

    def _checkpoint(self) -> None:
        state = {
            "maps": self.bridge.maps.state_dict(),
            "sparse": self.bridge.sparse.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
        }
        save_checkpoint(self.out, self.step, state, self.config.keep_checkpoints)

    def _restore(self) -> bool:
        found = load_checkpoint(self.out)
        if found is None:
            return False
        self.step, state = found
        self.bridge.maps.load_state_dict(state["maps"])
        self.bridge.sparse.load_state_dict(state["sparse"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        return True


def _schedule(progress: float) -> float:
    """Share of the peak learning rate: up over a twentieth of the run, then down to 0, never quite there."""
    return min((progress + 1e-3) / WARM_UP, 1.0) * (1 - progress)


def _described(step: int, values: dict[str, float]) -> str:
    divergences = f"KL {values['kl_to_sparse']:.3f} to sparse, {values['kl_to_dense']:.3f} to dense"
    return f"step {step} · NMSE {values['nmse']:.3f} · {divergences} · sparse loss {values['pretraining']:.3f}"
