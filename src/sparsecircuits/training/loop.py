"""The training loop: batches in, a weight-sparse model and a run directory out."""

import contextlib
import dataclasses
import functools
import math
import shlex
import shutil
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecircuits.data import TokenData, Tokenizer, open_sampler, prepare_tokens, validation_batches
from sparsecircuits.errors import Interrupted, UserError
from sparsecircuits.files import sweep
from sparsecircuits.kernels import warm_up
from sparsecircuits.locks import LOCK_NAME, locked
from sparsecircuits.models.statistics import dead_units
from sparsecircuits.models.storage import read_config, save_native, write_config
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.runs import CHECKPOINTS, CONFIG_NAME
from sparsecircuits.seeds import derived_seed
from sparsecircuits.sparsity.hard_concrete import HardConcrete
from sparsecircuits.sparsity.schedules import density_at, learning_rate_at
from sparsecircuits.sparsity.start import start_sparse_
from sparsecircuits.training import heads
from sparsecircuits.training.bigram import bigram_log_frequencies
from sparsecircuits.training.checkpoints import checkpoint_steps, newest_checkpoint
from sparsecircuits.training.compact import STORED, CompactWeights, held_apart
from sparsecircuits.training.config import TrainConfig
from sparsecircuits.training.distributed import World, joined
from sparsecircuits.training.engine import open_engine
from sparsecircuits.training.evaluation import validate
from sparsecircuits.training.hardware import auto_dtype, keep_freed_memory
from sparsecircuits.training.held import HeldWeights, whole_opened
from sparsecircuits.training.interrupts import Interrupts
from sparsecircuits.training.loggers import open_loggers, require_loggers
from sparsecircuits.training.metrics import MetricsLog
from sparsecircuits.training.optimizer import build_adam, decay_, decayed_weights, gradient_rms, scale_gradients_
from sparsecircuits.training.parts import Evaluator, Sampler
from sparsecircuits.training.revive import UNTIL, Reviver, require_revivable
from sparsecircuits.training.status import Status


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    init: SparseTransformer | None = None,
    tokens: TokenData | Callable[[], TokenData] | None = None,
    sampler: Sampler | None = None,
    evaluate: Evaluator | None = None,
    tokenizer: Tokenizer | None = None,
    report: Callable[[Status], None] | None = None,
    device: str | None = None,
) -> SparseTransformer:
    """Train a model into the run directory `out` and return it.

    resume: go on from the newest whole checkpoint (the saved config decides); a run resumed on the same
    machine ends with the weights of an uninterrupted one. init: begin with this model's weights instead of random ones;
    the run keeps its name (`config.init`). tokens: prepared data (`TokenData.of` makes it of two arrays), or what
    prepares it once `out` has been checked; by default `config.data` is prepared. sampler: gives the batches instead of
    shuffled windows of these tokens, whose validation split is still measured on. evaluate: measures more than the
    validation loss. tokenizer: the one the tokens were made with, by default the shipped one. A resumed run is given
    the same sampler, evaluator and tokenizer again. report: called after every step. Under torchrun the processes train
    one model together (`config.parallel`): each takes its part of every batch, and the first writes the files.

    Raises UserError for a directory that holds another run or that another process trains into, a bad config, a
    model to begin with of another shape or tokenizer, or a loss that is not finite.
    """
    keep_freed_memory()
    out, tokenizer = Path(out), tokenizer or Tokenizer.default()
    if init is not None:
        require_alike(init, config, tokenizer)
        config = dataclasses.replace(config, init=config.init or init.name or "a model in memory")
    elif config.init and not resume:
        raise UserError(f"the config begins with {config.init}: pass the model too, init=load_model({config.init!r})")
    with joined() as world, contextlib.ExitStack() as held:
        config = world.first(lambda: _checked_config(config, out, resume, held))
        if tokens is None:
            tokens = world.first_here(lambda: prepare_tokens(config.data, tokenizer))
        elif callable(tokens):
            tokens = world.first_here(tokens)
        run = _Run(config, out, tokens, tokenizer, world.device(device), world, init, sampler, evaluate)
        return run.train(resume, report)


def _checked_config(config: TrainConfig, out: Path, resume: bool, held: contextlib.ExitStack) -> TrainConfig:
    """The config to train with, after `out` was locked until `held` closes."""
    held.enter_context(locked(out / LOCK_NAME, f"a training into {out}"))
    if resume:
        config = saved_config(out)
    elif (out / CONFIG_NAME).exists():
        raise UserError(f"{out} already holds a run: choose another --out, or go on with --resume")
    require_loggers(config.logger)
    require_room(config, out, resume)
    return config


def require_alike(init: SparseTransformer, config: TrainConfig, tokenizer: Tokenizer) -> None:
    """Raise UserError if a model cannot be what training with this config begins with."""
    theirs, ours, name = init.config.identity(), config.model.identity(), config.init or init.name or "the model"
    ours["offsets"], theirs["offsets"] = config.model.offsets, init.config.offsets
    if (init.config.offsets or 0) <= (config.model.offsets or 0):  # those that it lacks are 0, as they begin anyway
        theirs["offsets"] = ours["offsets"]
    differ = [f"model.{key} {theirs.get(key)}, not {value}" for key, value in ours.items() if theirs.get(key) != value]
    if differ:
        raise UserError(f"{name} has {'; '.join(differ)}")
    if init.tokenizer is not None and init.tokenizer.content_hash != tokenizer.content_hash:
        raise UserError(f"{name} has another tokenizer than the one that training uses")


def begin_with_(model: SparseTransformer, init: SparseTransformer, tokens: TokenData) -> None:
    """Give a model the weights of another one like it, which may lack logits by offset: 0, they change nothing. Where
    it has none at all, heads that give validation text no attention wake up."""
    state = init.state_dict()
    for name, parameter in model.named_parameters():
        if name.endswith("offset_logit"):
            known = state.get(name, parameter.new_zeros(parameter.shape[0], 0))
            state[name] = F.pad(known, (0, parameter.shape[1] - known.shape[1]))
    model.load_state_dict(state)
    if init.config.offsets is None and model.config.offsets is not None:
        ids, _ = next(validation_batches(tokens.val, model.config.n_ctx, heads.SEQUENCES))
        heads.wake_heads_(model, torch.from_numpy(ids).to(model.device))


def require_room(config: TrainConfig, out: Path, resume: bool = False) -> None:
    """Raise UserError if the disk of `out` has no room for the checkpoints and the model of a run, or for the one
    more checkpoint that a resumed one needs."""
    with torch.device("meta"):
        model = SparseTransformer(config.model)
    stored = sum(4 * p.numel() for p in model.parameters())
    moments = sum(8 * p.numel() for p in model.parameters() if p.requires_grad)
    for target, kept in held_apart(model, config.sparsity):
        stored += kept * STORED - 12 * model.get_parameter(target.name).numel()
    planned = (config.total_steps or math.inf) // config.checkpoint_every + 1
    checkpoints = (
        1 if resume else min(config.keep_checkpoints + 1, planned)
    )  # a new one is there before an old one goes
    needed = int(checkpoints * (stored + moments))
    place = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"training needs {needed / 1e6:,.0f} MB for checkpoints in {out}, whose disk has {free / 1e6:,.0f} MB "
            "free: make room, or lower keep_checkpoints"
        )


def saved_config(out: Path) -> TrainConfig:
    """The config that a run was started with. Raises UserError if there is none."""
    raw = read_config(Path(out) / CONFIG_NAME)
    if "train" not in raw:
        raise UserError(f"{out} was not made by training: there is nothing to resume")
    return TrainConfig.from_dict({**raw["train"], "model": raw["model"]})


class _Run:
    """One run's moving parts; `train` is its only entrance."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        tokens: TokenData,
        tokenizer: Tokenizer,
        device: torch.device,
        world: World = World(),  # noqa: B008 (frozen)
        init: SparseTransformer | None = None,
        sampler: Sampler | None = None,
        evaluate: Evaluator | None = None,
    ) -> None:
        if tokenizer.vocab_size > config.model.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens: model.vocab_size is {config.model.vocab_size}"
            )
        if config.total_steps is None and config.minutes is None:
            raise UserError("how long? give steps, tokens or minutes")
        if len(tokens.val) <= config.model.n_ctx:
            raise UserError(
                f"the validation split of {config.data} has {len(tokens.val)} tokens, too few for a context of "
                f"{config.model.n_ctx} (it takes {config.model.n_ctx + 1}): use more data or a shorter context"
            )
        self.out, self.device, self.tokens, self.world = out, device, tokens, world
        self.parts = world.parts(config.batch_size, config.accumulate)
        torch.manual_seed(config.seed)
        self.model = SparseTransformer(config.model).to(device)
        self.model.tokenizer, self.model.name = tokenizer, out.resolve().name
        self.model.corpus = config.data
        if init is not None:
            begin_with_(self.model, init, tokens)
        elif config.bigram_init == "counts" and self.model.bigram is not None:
            counted = bigram_log_frequencies(tokens.sample(), config.model.vocab_size)
            self.model.bigram.weight.data.copy_(counted)
        if config.dtype == "auto":
            fast = "float32" if config.sparsity.state == "compact" else auto_dtype(device)[0]
            config = dataclasses.replace(config, dtype=world.of_first(fast))
        start_sparse_(self.model, config.sparsity)
        self.config = config
        self.engine = open_engine(self.model, config, world)
        self.projector = self.engine.projector(config.sparsity)
        self.gates = HardConcrete(self.model, config.sparsity) if config.sparsity.sparsifier != "topk" else None
        apart = self.engine.take_out(config)
        self.learned = [p for p in self.model.parameters() if p.requires_grad]
        self.decayed = decayed_weights(self.model)
        if self.gates is not None:
            self.learned, self.decayed = self.gates.learned(self.model), list(self.gates.free)
        self.adam = build_adam(self.learned, config.optimizer)
        self.reviver: Reviver | None = None
        if config.sparsity.revive_every and not config.sparsity.dense:
            require_revivable(self.engine.shards is not None)
            self.reviver = Reviver(self.model, config.seed, world)
        self.held: HeldWeights | None = None
        if apart:
            self.held = CompactWeights(self.model, apart, self.adam, config.optimizer, world)
        elif config.sparsity.regrow_every > 1 and self.projector.targets:
            names = [target.name for target in self.projector.targets]
            self.held = self.engine.held_weights(names, self.adam, config)
        self.evaluate = evaluate
        self.sampler: Sampler = sampler or open_sampler(
            tokens, tokenizer, config.model.n_ctx, config.batch_size, config.seed, block_tokens=config.shuffle_tokens
        )
        sample = zlib.crc32(np.ascontiguousarray(tokens.train[:1_000_000]).tobytes())
        world.require_same(
            (sample, self.sampler.state_dict()),
            f"the processes see different text under {config.data}: give all the same files and Python version",
        )
        self.step, self.seconds, self.val_loss = 0, 0.0, None  # type: int, float, float | None
        self.log: MetricsLog | None = None

    def train(self, resume: bool, report: Callable[[Status], None] | None) -> SparseTransformer:
        restored = self._restore() if resume else False
        self.world.first(lambda: self._open_files(self.step if restored else None))
        warm_up()
        self.world.wait()
        try:
            with Interrupts(patient=self.world.size > 1) as interrupts:
                self._loop(interrupts, report)
            self._settle()
            measured, fired = self._measure()
            self._checkpoint()
            if self.held is not None:
                self.held.finish()
            model = self.engine.finished().eval()
            dead = {f"dead_{kind}": count for kind, count in dead_units(model, fired).items()}
            self._write_measured(measured, **dead, done=True)
        finally:
            if self.log is not None:
                self.log.close()
        self.world.first(lambda: save_native(model, self.out, self._about()))
        return model

    def _loop(self, interrupts: Interrupts, report: Callable[[Status], None] | None) -> None:
        """Take all steps, or those until a signal asks to stop."""
        began, before = time.perf_counter(), self.seconds
        while (progress := self._progress()) < 1:
            started = time.perf_counter()
            loss, rms, rate = self._take_step(progress)
            if not math.isfinite(loss) or not math.isfinite(rms):
                self._diverged(loss, rms)
            self.step += 1
            speed = self.config.tokens_per_step / (time.perf_counter() - started)
            if self.step % self.config.eval_every == 0:
                self._evaluate_or_keep()
            asked = self._read_clock(before + time.perf_counter() - began, interrupts.asked)
            status = self._status(progress, loss, speed)
            if self.step % self.config.log_every == 0 or self.step == 1:
                self._write(**self._line(status, rms, rate))
            if report is not None and self.world.is_first:
                report(status)
            # Where weights are held between dense gradients, a checkpoint holds them anew: an unplanned one waits
            # until they would be, so that it changes nothing.
            stop = asked and self.step % self.config.sparsity.regrow_every == 0
            if stop or self.step % self.config.checkpoint_every == 0:
                self._checkpoint()
            if stop:
                self._stop(asked)

    def _open_files(self, resume_step: int | None) -> None:
        write_config(self.config.model, self.out, self._about())
        for folder in (self.out, self.out / CHECKPOINTS):
            sweep(folder)
        loggers = open_loggers(self.config.logger, self.out, self.config.to_dict(), resume_step)
        self.log = MetricsLog(self.out, resume_step, loggers)

    def _write(self, **values: Any) -> None:
        if self.log is not None:
            self.log.write(**values)

    def _read_clock(self, seconds: float, asked: int) -> int:
        """Set the seconds of training; the signal that asked any process to stop, or 0. The first process's clock
        decides, so that all stop at one step."""
        self.seconds, numbers = self.world.total(seconds if self.world.is_first else 0.0, float(asked))
        return asked or (signal.SIGTERM if numbers else 0)

    def _stop(self, asked: int) -> NoReturn:
        """End at the wish of a signal, after a checkpoint."""
        if not self.world.is_first:
            raise SystemExit(128 + asked)
        raise Interrupted(
            f"interrupted, the checkpoint of step {self.step} is saved: go on with "
            f"`sparsecircuits train --out {shlex.quote(str(self.out))} --resume`",
            asked,
        )

    def _progress(self) -> float:
        """Share of the run that is done, at the start of a step."""
        if self.config.minutes is not None:
            return self.seconds / (60 * self.config.minutes)
        assert self.config.total_steps is not None
        return self.step / self.config.total_steps

    def _take_step(self, progress: float) -> tuple[float, float, float]:
        """One optimizer step; (loss, gradient root-mean-square, learning rate)."""
        settings = self.config.optimizer
        inputs, targets = self._next_batch()
        if self.gates is not None:
            self.gates.prepare(derived_seed(self.config.seed, self.step))
        regrows = self.step % self.config.sparsity.regrow_every == 0
        held = None if self.held is None else self.held.enter(regrows)
        self.adam.zero_grad(set_to_none=True)
        if held is not None:
            held.begin(inputs)
        self.engine.holding = held is not None and held.direct
        with contextlib.nullcontext() if self.reviver is None or not regrows else self.reviver.watching():
            loss = self._gradient(inputs, targets)
        if self.gates is not None:
            self.gates.collect()
        rms = self._normalise(held)
        scheduled = self.gates is None  # gates have no schedule of L0 that the learning rate could follow
        rate = learning_rate_at(
            progress, settings.lr, settings.warmup, self.config.sparsity, sharkfin=settings.sharkfin and scheduled
        )
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        decay = rate * settings.weight_decay
        if held is not None:
            held.step(rate, decay)
        self.projector(progress, () if held is None else held.names)
        decay_(self.decayed if held is None else held.others(self.decayed), decay)
        self._revive(progress)
        if self.held is not None and held is None:
            self.held.hold()
        return loss, float(rms), rate

    def _next_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """The whole batch: all processes draw the same one. Raises UserError for one of another shape."""
        inputs, targets = self.sampler.next()
        expected = self.config.batch_size, self.config.model.n_ctx
        if inputs.shape != expected or targets.shape != expected:
            raise UserError(f"the sampler gave batches of {inputs.shape} and {targets.shape}, not of {expected}")
        return inputs, targets

    def _revive(self, progress: float) -> None:
        """At the end of a step with dense gradients: dead units begin anew, where it is time for that."""
        every = self.config.sparsity.revive_every
        if self.reviver is None or self.step == 0 or self.step % every or progress >= UNTIL:
            return
        opened = functools.partial(whole_opened, self.adam) if self.held is None else self.held.opened
        revived = self.reviver.revive(self.step, opened)
        self._write(step=self.step, **{f"revived_{kind}": count for kind, count in revived.items()})

    def _normalise(self, held: HeldWeights | None) -> Tensor:
        """Bring the gradient to its scale; returns its root-mean-square before."""
        sampled, rows, candidates = ([], [], []) if held is None else held.collect()
        whole = [p for p in self.learned if p.grad is not None]
        complete = [p.grad for p in whole if p.grad is not None] + rows
        self.engine.exchange(complete + sampled)
        entries = sum(p.numel() for p in whole) + (0 if held is None else held.entries)
        share = 1.0 if held is None else held.share
        rms = gradient_rms(complete, entries, sampled, share, self.engine.shards)
        scale_gradients_(complete + sampled + candidates, rms, self.config.optimizer.gradient)
        return rms

    def _gradient(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Compute the whole batch's gradient, this process's part in micro-batches; returns its mean loss."""
        losses = []
        for part in self.parts:
            share = (part.stop - part.start) / len(inputs)
            with self.engine.waiting(more=part is not self.parts[-1]):
                loss = self.loss(inputs[part], targets[part])
                self.engine.backward(loss, share)
            losses.append(loss.detach() * share)
        return self.world.total(sum(losses).item())[0]

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> Tensor:
        """Mean cross-entropy in nats of next tokens; inputs and targets [B, T]."""
        x, y = torch.from_numpy(inputs).to(self.device), torch.from_numpy(targets).to(self.device)
        return self.engine.loss(x, y)

    def _settle(self) -> None:
        """Bring the model's weights to what they are after training."""
        if self.held is not None:
            self.held.release()
        if self.gates is None:
            self.projector(1.0, () if self.held is None else self.held.names)
        else:
            self.gates.settle()

    def _measure(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Figures of the validation text, and which units are nonzero on it."""
        if self.gates is not None:
            self.gates.settle()
        measured, fired = validate(self.engine, self.tokens.val, self.config, self.loss)
        self.val_loss = measured["val_loss"]
        if self.evaluate is not None:
            with torch.no_grad(), self.engine.uncompiled():
                measured = {**self.evaluate(self.model), **measured}
        return measured, fired

    def _write_measured(self, measured: dict[str, float], **more: float | bool) -> None:
        tokens = self.step * self.config.tokens_per_step
        self._write(step=self.step, tokens=tokens, **measured, seconds=round(self.seconds, 3), **more)

    def _evaluate_or_keep(self) -> None:
        """Evaluate; should that fail, keep what was learned."""
        try:
            self._write_measured(self._measure()[0])
        except Exception:
            if self.world.size == 1:
                self._checkpoint()
            raise

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
            "nonzeros": self.engine.nonzeros() + (0 if self.held is None else self.held.apart),
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
        gates = None if self.gates is None else self.gates.state_dict()
        state: dict[str, Any] = {
            "sampler": self.sampler.state_dict(),
            "seconds": self.seconds,
            "val_loss": self.val_loss,
            "dtype": self.config.dtype,
            "held": None if self.held is None else self.held.renewed(),
            "fired": None if self.reviver is None else self.reviver.state_dict(),
        }
        self.engine.save(self.out, self.step, self.adam, gates, state)

    def _restore(self) -> bool:
        found = self.world.first(lambda: newest_checkpoint(self.out))
        if found is None:
            return False
        self.step, path = found
        state = self.engine.load(path, self.adam)
        if self.gates is not None:
            self.gates.load_state_dict(state["gates"])
        self.sampler.load_state_dict(state["sampler"])
        self.seconds, self.val_loss = state["seconds"], state["val_loss"]
        if self.held is not None and state.get("held") is not None:
            self.held.load_state_dict(state["held"])
        if self.reviver is not None and state.get("fired") is not None:
            self.reviver.load_state_dict(state["fired"])
        return True

    def _diverged(self, loss: float, rms: float) -> None:
        steps = checkpoint_steps(self.out)
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "no checkpoint was made yet"
        what = f"the gradient is {rms}" if math.isfinite(loss) else f"the loss is {loss}"
        raise UserError(f"training diverged: {what} at step {self.step + 1}; {kept}. Lower optimizer.lr")
