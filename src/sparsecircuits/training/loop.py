"""The training loop: batches in, a weight-sparse model and a run directory out."""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sparsecircuits.data import TokenData, Tokenizer, open_sampler, prepare_tokens, validation_batches
from sparsecircuits.errors import UserError
from sparsecircuits.kernels import warm_up
from sparsecircuits.models.statistics import count_neurons
from sparsecircuits.models.storage import CONFIG_NAME, read_config, save_native, write_config
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.sparsity.hard_concrete import HardConcrete
from sparsecircuits.sparsity.projection import Projector
from sparsecircuits.sparsity.schedules import density_at, learning_rate_at
from sparsecircuits.training.bigram import bigram_log_frequencies
from sparsecircuits.training.checkpoints import checkpoint_steps, load_checkpoint, save_checkpoint
from sparsecircuits.training.config import TrainConfig
from sparsecircuits.training.hardware import fast_dtype, keep_freed_memory, shortest_time
from sparsecircuits.training.loggers import open_loggers, require_loggers
from sparsecircuits.training.metrics import MetricsLog
from sparsecircuits.training.optimizer import build_adam, decay_, decayed_weights, scale_gradients_
from sparsecircuits.training.status import Status


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    tokens: TokenData | None = None,
    report: Callable[[Status], None] | None = None,
    device: str | None = None,
) -> SparseTransformer:
    """Train a model into the run directory `out` and return it.

    resume: go on from the newest whole checkpoint (the saved config decides); a run resumed on the same
    machine ends with the weights of an uninterrupted one. tokens: prepared data; by default
    `config.data` is prepared. report: called after every step.

    Raises UserError for a directory that holds another run, a bad config, or a loss that is not finite.
    """
    keep_freed_memory()
    out = Path(out)
    if resume:
        config = saved_config(out)
    elif (out / CONFIG_NAME).exists():
        raise UserError(f"{out} already holds a run: choose another --out, or go on with --resume")
    require_loggers(config.logger)
    tokenizer = Tokenizer.default()
    tokens = tokens if tokens is not None else prepare_tokens(config.data, tokenizer)
    run = _Run(config, out, tokens, tokenizer, torch.device(device or _default_device()))
    return run.train(resume, report)


def saved_config(out: Path) -> TrainConfig:
    """The config that a run was started with. Raises UserError if there is none."""
    raw = read_config(Path(out) / CONFIG_NAME)
    if "train" not in raw:
        raise UserError(f"{out} was not made by training: there is nothing to resume")
    return TrainConfig.from_dict({**raw["train"], "model": raw["model"]})


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast_loss(model: SparseTransformer, inputs: Tensor, targets: Tensor, bfloat16: bool) -> Tensor:
    """Mean cross-entropy in nats of next tokens [B, T], matrix products in bfloat16 if asked for."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        return model.loss(inputs, targets)


class _Run:
    """One run's moving parts; `train` is its only entrance."""

    def __init__(
        self, config: TrainConfig, out: Path, tokens: TokenData, tokenizer: Tokenizer, device: torch.device
    ) -> None:
        if tokenizer.vocab_size > config.model.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens: model.vocab_size is {config.model.vocab_size}"
            )
        if config.total_steps is None and config.minutes is None:
            raise UserError("how long? give steps, tokens or minutes")
        self.config, self.out, self.device, self.tokens = config, out, device, tokens
        torch.manual_seed(config.seed)
        self.model = SparseTransformer(config.model).to(device)
        self.model.tokenizer, self.model.name = tokenizer, out.resolve().name
        self.model.corpus = config.data
        if config.bigram_init == "counts" and self.model.bigram is not None:
            counted = bigram_log_frequencies(tokens.sample(), config.model.vocab_size)
            self.model.bigram.weight.data.copy_(counted)
        self.projector = Projector(self.model, config.sparsity)
        if config.dtype == "auto":
            self.config = dataclasses.replace(config, dtype=self._fastest_dtype())
        self.gates = HardConcrete(self.model, config.sparsity) if config.sparsity.sparsifier != "topk" else None
        self.learned = [p for p in self.model.parameters() if p.requires_grad]
        self.decayed = decayed_weights(self.model)
        if self.gates is not None:
            self.learned, self.decayed = self.gates.learned(self.model), list(self.gates.free)
        self.adam = build_adam(self.learned, config.optimizer)
        self.sampler = open_sampler(
            tokens, tokenizer, config.model.n_ctx, config.batch_size, config.seed, block_tokens=config.shuffle_tokens
        )
        self.step, self.seconds, self.val_loss = 0, 0.0, None  # type: int, float, float | None

    def _fastest_dtype(self) -> Literal["float32", "bfloat16"]:
        """The autocast type that trains this model faster here.

        On a CPU with fast bfloat16 both are timed on a whole forward and backward pass at the final
        density: products over the nonzeros, in float32, may still win.
        """
        if fast_dtype(self.device, self.config.tokens_per_step, self.config.model.d_model) is torch.float32:
            return "float32"
        if self.device.type == "cuda":
            return "bfloat16"
        twin = copy.deepcopy(self.model)
        Projector(twin, self.config.sparsity)(1.0)
        size = (self.config.batch_size, self.config.model.n_ctx)
        ids = torch.from_numpy(np.resize(np.asarray(self.tokens.train[: size[0] * size[1]], dtype=np.int64), size))
        low, single = (
            shortest_time(lambda use=use: autocast_loss(twin, ids, ids, use).backward())  # type: ignore[misc]
            for use in (True, False)
        )
        return "bfloat16" if low < single else "float32"

    def train(self, resume: bool, report: Callable[[Status], None] | None) -> SparseTransformer:
        restored = self._restore() if resume else False
        write_config(self.config.model, self.out, self._about())
        resume_step = self.step if restored else None
        loggers = open_loggers(self.config.logger, self.out, self.config.to_dict(), resume_step)
        log = MetricsLog(self.out, resume_step, loggers)
        warm_up()
        began, before = time.perf_counter(), self.seconds
        try:
            while (progress := self._progress()) < 1:
                started = time.perf_counter()
                loss, rms, rate = self._take_step(progress)
                if not math.isfinite(loss):
                    self._diverged(loss)
                self.step += 1
                speed = self.config.tokens_per_step / (time.perf_counter() - started)
                if self.step % self.config.eval_every == 0:
                    self._evaluate(log)
                self.seconds = before + time.perf_counter() - began
                status = self._status(progress, loss, speed)
                if self.step % self.config.log_every == 0 or self.step == 1:
                    log.write(**self._line(status, rms, rate))
                if report is not None:
                    report(status)
                if self.step % self.config.checkpoint_every == 0:
                    self._checkpoint()
            self._settle()
            self._evaluate(log, done=True)
        finally:
            log.close()
        self._checkpoint()
        save_native(self.model.eval(), self.out, self._about())
        return self.model

    def _progress(self) -> float:
        """Share of the run that is done, at the start of a step."""
        if self.config.minutes is not None:
            return self.seconds / (60 * self.config.minutes)
        assert self.config.total_steps is not None
        return self.step / self.config.total_steps

    def _take_step(self, progress: float) -> tuple[float, float, float]:
        """One optimizer step; (loss, gradient root-mean-square, learning rate)."""
        settings = self.config.optimizer
        inputs, targets = self.sampler.next()
        if self.gates is not None:
            self.gates.prepare(seed=(self.config.seed << 32) + self.step)
        loss = self.loss(inputs, targets)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        if self.gates is not None:
            self.gates.collect()
        rms = scale_gradients_(self.learned, settings.gradient)
        scheduled = self.gates is None  # gates have no schedule of L0 that the learning rate could follow
        rate = learning_rate_at(
            progress, settings.lr, settings.warmup, self.config.sparsity, sharkfin=settings.sharkfin and scheduled
        )
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.projector(progress)
        decay_(self.decayed, rate * settings.weight_decay)
        return loss.item(), float(rms), rate

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> Tensor:
        """Mean cross-entropy in nats of next tokens; inputs and targets [B, T]."""
        x, y = torch.from_numpy(inputs).to(self.device), torch.from_numpy(targets).to(self.device)
        return autocast_loss(self.model, x, y, self.config.dtype == "bfloat16")

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Validation loss in nats a token, and how many of the MLP neurons were ever nonzero on that text."""
        batches = validation_batches(
            self.tokens.val, self.config.model.n_ctx, self.config.batch_size, self.config.eval_tokens
        )
        with count_neurons(self.model) as neurons:
            losses = [(self.loss(x, y).item(), y.size) for x, y in batches]
        mean = sum(loss * size for loss, size in losses) / sum(size for _, size in losses)
        return {"val_loss": mean, "alive_neurons": neurons.alive, "neurons": neurons.total}

    def _settle(self) -> None:
        """Bring the model's weights to what they are after training."""
        if self.gates is None:
            self.projector(1.0)
        else:
            self.gates.settle()

    def _evaluate(self, log: MetricsLog, **more: bool) -> None:
        if self.gates is not None:
            self.gates.settle()
        measured = self.evaluate()
        self.val_loss = measured["val_loss"]
        tokens = self.step * self.config.tokens_per_step
        log.write(step=self.step, tokens=tokens, **measured, seconds=round(self.seconds, 3), **more)

    def _status(self, progress: float, loss: float, speed: float) -> Status:
        done = self._progress()
        left = self.seconds * (1 - done) / done if done > 0 else math.inf
        if self.config.minutes is not None:
            left = 60 * self.config.minutes - self.seconds
        density = density_at(progress, self.config.sparsity.density, self.config.sparsity)
        density = density if self.gates is None else self.gates.density
        return Status(self.step, min(1.0, done), loss, density, speed, max(0.0, left), self.val_loss)

    def _line(self, status: Status, rms: float, rate: float) -> dict[str, float]:
        return {
            "step": status.step,
            "tokens": status.step * self.config.tokens_per_step,
            "progress": status.progress,
            "loss": status.loss,
            "density": status.density,
            "nonzeros": count_parameters(self.model)[1],
            "lr": rate,
            "grad_rms": rms,
            "tokens_per_second": round(status.tokens_per_second, 1),
            "seconds": round(self.seconds, 3),
        }

    def _about(self) -> dict:
        """What config.json holds beside the model's config."""
        settings = self.config.to_dict()
        del settings["model"]
        return {"train": settings, "data": self.tokens.manifest}

    def _checkpoint(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "gates": None if self.gates is None else self.gates.state_dict(),
            "sampler": self.sampler.state_dict(),
            "seconds": self.seconds,
            "val_loss": self.val_loss,
            "dtype": self.config.dtype,
        }
        save_checkpoint(self.out, self.step, state, self.config.keep_checkpoints)

    def _restore(self) -> bool:
        found = load_checkpoint(self.out)
        if found is None:
            return False
        self.step, state = found
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        if self.gates is not None:
            self.gates.load_state_dict(state["gates"])
        self.sampler.load_state_dict(state["sampler"])
        self.seconds, self.val_loss = state["seconds"], state["val_loss"]
        return True

    def _diverged(self, loss: float) -> None:
        steps = checkpoint_steps(self.out)
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "no checkpoint was made yet"
        raise UserError(f"training diverged: the loss is {loss} at step {self.step + 1}; {kept}. Lower optimizer.lr")
