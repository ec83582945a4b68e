"""A circuit's logits at the cost of the circuit.

Where almost every node is frozen at a constant, a matrix has few inputs that vary, a site without kept nodes
need not be computed at all, and the last layer matters at one position. What that leaves is a `Plan`; here it runs.
What the same nodes computed in the call before is used again: sets that differ in one late node share all that comes
earlier.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsecircuits.kernels import abstopk, attention_at, causal_attention
from sparsecircuits.models.names import split_site
from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.streams import Base, NarrowStream, Prompts, Stream, takes_narrow, with_channels
from sparsecircuits.nodes.task_loss import in_chunks, pick_answers
from sparsecircuits.plans.contests import SitePlan, running_heads, site_plan
from sparsecircuits.plans.narrowing import Narrowing, Off
from sparsecircuits.plans.plan import Plan
from sparsecircuits.tasks import PairBatch

REMEMBERED = 2  # results per stage and chunk of prompts
MOST_MEMORY = 1 << 30  # bytes that all of them may take
T = TypeVar("T")
FEW = 8  # a stream is narrow while reads times channels that vary are no more than so many times its width

Watch = Callable[[str, Tensor], Tensor]
"""(site, activations [n, S, kept]) -> what they are from there on."""


class CompactForward:
    """Runs sets of nodes and edges of a model over one batch of pairs; all else is frozen at constants.

    The logits of a forward pass under `Gating` with gates of 0 and 1, to float32 rounding. Not differentiable;
    the model's weights must not change while it lives. narrowing: what `narrowing_of` gives.
    """

    @torch.no_grad()
    def __init__(self, model: SparseTransformer, batch: PairBatch, narrowing: Narrowing) -> None:
        self._model, self._batch = model, batch
        self._space = NodeSpace.of(model.config)
        self._narrowing = narrowing
        order, chunks = in_chunks(batch)
        self._order = torch.from_numpy(order).to(model.device)
        bytes_a_stage = 4 * model.config.d_model * sum(chunk.tokens.size for chunk in chunks)
        remember = 4 * model.config.n_layer * REMEMBERED * bytes_a_stage <= MOST_MEMORY
        self._prompts = [(Prompts(model, chunk), _Memory(remember)) for chunk in chunks]
        tokens = torch.from_numpy(np.unique(batch.tokens)).to(model.device)
        self._rows, self._tables = TokenRows.of(model, tokens), _Memory(remember)

    @torch.no_grad()
    def __call__(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Float[Tensor, "n 2"]:
        """Candidate logits of all prompts, in the batch's order; `removed` edges between kept nodes are off."""
        off = None if removed is None or not len(removed) else removed[removed.between(kept)]
        plan = self._narrowing.plan(masks(self._space, kept), edges_by_site(self._space, off))
        keys = _Keys(self._space, kept, off)
        walk = Walk(self._model, plan, self._rows, self._batch.tokens.shape[1], keys, self._tables)
        found = torch.cat([walk.logits(prompts, self._batch, memory) for prompts, memory in self._prompts])
        return torch.empty_like(found).index_copy_(0, self._order, found)


def narrowing_of(model: SparseTransformer, frozen: Float[Tensor, " nodes"]) -> Narrowing:
    """What the plans of all sets of a model's nodes share."""
    sites = NodeSpace.of(model.config).split(frozen.detach().cpu().float())
    return Narrowing(
        Plan.of_weights(model.config, model.state_dict()), {site: values.numpy() for site, values in sites.items()}
    )


def masks(space: NodeSpace, kept: Bool[Tensor, " nodes"]) -> dict[str, np.ndarray]:
    """A mask of nodes as `Narrowing` reads it."""
    return {site: mask.numpy() for site, mask in space.split(kept.cpu()).items()}


def edges_by_site(space: NodeSpace, off: Edges | None) -> Off:
    """Edges between kept nodes as `Narrowing` reads them."""
    if off is None or not len(off):
        return {}
    sites = sorted((place.start, site) for site, place in space.slices.items())
    starts, names = np.array([start for start, _ in sites]), [site for _, site in sites]
    source, target = off.source.cpu().numpy(), off.target.cpu().numpy()
    a, b = (np.searchsorted(starts, ends, side="right") - 1 for ends in (source, target))
    pair = a * len(sites) + b
    found = {}
    for one in np.unique(pair):
        here = pair == one
        i, j = divmod(int(one), len(sites))
        found[names[i], names[j]] = target[here] - starts[j], source[here] - starts[i]
    return found


class _Memory:
    """What was computed not long ago, by stage and by what it hangs on."""

    def __init__(self, remember: bool) -> None:
        self._remember = remember
        self._stages: dict[Hashable, OrderedDict[Hashable, object]] = {}

    def once(self, stage: Hashable, key: Hashable, compute: Callable[[], T]) -> T:
        """compute(), or what it gave for the same key when that was not long ago."""
        if not self._remember or key is None:
            return compute()
        known = self._stages.setdefault(stage, OrderedDict())
        if key not in known:
            value = compute()
            known[key] = value
            while len(known) > REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        return cast(T, known[key])


class _Keys:
    """What results hang on: equal for sets that agree on all nodes, and on edges into them, up to some place."""

    def __init__(self, space: NodeSpace, kept: Bool[Tensor, " nodes"], off: Edges | None) -> None:
        self._space, self._mask, self._off = space, kept.cpu(), off
        self._known: dict[int, Hashable] = {}

    def at(self, site: str, after: bool) -> Hashable:
        """Up to the beginning or the end of a site."""
        place = self._space.slices[site]
        stop = place.stop if after else place.start
        if stop not in self._known:
            edges: tuple[bytes, ...] = ()
            if self._off is not None:
                early = self._off.target < stop
                edges = (self._off.source[early].numpy().tobytes(), self._off.target[early].numpy().tobytes())
            self._known[stop] = (self._mask[:stop].nonzero().numpy().tobytes(), *edges)
        return self._known[stop]


class TokenRows:
    """Embeddings of the tokens that occur, and where each token's is: what narrow streams begin with."""

    def __init__(self, rows: Float[Tensor, "U D"], places: Int[Tensor, " V"]) -> None:
        self.rows, self.places = rows, places

    @classmethod
    def of(cls, model: SparseTransformer, tokens: Int[Tensor, " U"]) -> "TokenRows":
        """tokens: in ascending order."""
        places = torch.zeros(model.config.vocab_size, dtype=torch.int64, device=tokens.device)
        places[tokens] = torch.arange(len(tokens), device=tokens.device)
        return cls(model.wte.weight.detach()[tokens], places)


class Walk:
    """A plan that runs: the one pass over the layers, for a set of nodes of any size.

    length: tokens of the longest prompt. keys, tables: where results are to be remembered; without keys nothing is.
    watch: sees, and may change, what the kept nodes of a site do.
    """

    def __init__(
        self,
        model: SparseTransformer,
        plan: Plan,
        rows: TokenRows,
        length: int,
        keys: _Keys | None = None,
        tables: _Memory | None = None,
    ) -> None:
        self._model, self._plan, self._rows, self._length = model, plan, rows, length
        self._keys, self._tables = keys, tables or _Memory(True)
        device = model.device
        self.kept = {site: torch.from_numpy(channels).to(device) for site, channels in plan.varying.items()}
        self._frozen = {site: torch.from_numpy(values).float().to(device) for site, values in plan.frozen.items()}
        writes = [f"{layer}.attn.resid_delta" for layer in range(plan.config.n_layer)]
        # The last layer whose attention writes what varies, -1 if none: after it only the last position matters.
        self.last_reader = max((layer for layer, site in enumerate(writes) if len(self.kept[site])), default=-1)
        self._narrow = takes_narrow(model) and self._is_small()
        self._sums: dict[str, _Sums] = {}

    def _is_small(self) -> bool:
        """Whether a narrow stream costs less than a dense one."""
        sizes = {site: len(channels) for site, channels in self.kept.items()}
        reads = max(size for site, size in sizes.items() if site.endswith("act_in"))
        writes = sum(size for site, size in sizes.items() if site.endswith("resid_delta"))
        config = self._plan.config
        return reads * (writes + config.d_in - config.d_model) <= FEW * config.d_model

    def logits(
        self, prompts: Prompts, batch: PairBatch, memory: "_Memory | None" = None, watch: Watch | None = None
    ) -> Float[Tensor, "n 2"]:
        """Candidate logits after each prompt. batch: says which answers these are."""
        # Over a class every token counts.
        answers = slice(None) if batch.over_class else list(batch.answers)
        model, memory = self._model, memory or _Memory(False)
        seen: Watch = watch or (lambda _site, x: x)
        stream: Stream = prompts.dense()
        if self._narrow:
            base = Base(model, self._rows.rows, torch.zeros_like(model.wte.weight[0]))
            stream = NarrowStream.start(base, self._rows.places[prompts.tokens])
        if self.last_reader < 0:
            stream = stream.at(prompts.last)
        for layer in range(model.config.n_layer):
            for half, run in (("attn", self._attended), ("mlp", self._transformed)):
                compute = partial(run, prompts, memory, seen, layer, stream)
                stream = memory.once((layer, half), self._key(f"{layer}.{half}.resid_delta", after=True), compute)
        site = "final_resid"
        final = seen(site, stream.final(self.kept[site]))
        hidden = model.ln_f(with_channels(self._frozen[site], final, self.kept[site]))[:, 0]
        logits = F.linear(hidden, model.lm_head.weight[answers], model.logit_bias[answers])
        if model.bigram is not None:
            logits = logits + model.bigram.weight[prompts.last_token][:, answers]
        return pick_answers(logits, batch).float() if batch.over_class else logits.float()

    def _key(self, site: str, after: bool) -> Hashable:
        return None if self._keys is None else (self._narrow, self.last_reader, self._keys.at(site, after))

    def _attended(self, prompts: Prompts, memory: _Memory, seen: Watch, layer: int, stream: Stream) -> Stream:
        """The residual stream after attention; at the prompts' last positions alone where only they matter from here
        on."""
        stream, write = stream.entered(layer, "attn"), f"{layer}.attn.resid_delta"
        last = prompts.last if layer == self.last_reader else None
        update, channels = self._frozen[write][:0], self.kept[write]
        if len(channels):
            carried = self._attention(prompts, memory, seen, layer, stream, last)
            update = seen(write, self._sum(write)(carried, last))
        return (stream if last is None else stream.at(last)).plus(layer, "attn", self._frozen[write], update, channels)

    def _attention(
        self, prompts: Prompts, memory: _Memory, seen: Watch, layer: int, stream: Stream, last: Tensor | None
    ) -> Float[Tensor, "n S inputs"]:
        """What the inputs of attention's write are: values that heads carry, and how much of their attention those
        get that have a sink."""
        attn, size = self._model.block(layer).attn, self._plan.config.d_head
        heads = torch.tensor(running_heads(self._plan, layer), dtype=torch.int64, device=self._model.device)
        inputs = self._read(memory, seen, layer, "attn", stream)
        if not len(heads):
            return inputs[..., :0] if last is None else inputs[:, :1, :0]
        channels = (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()
        queries = inputs if last is None else rows_at(inputs, last)
        q, k = (
            self._of_heads(f"{layer}.attn.{name}", read, channels, seen)
            for name, read in (("q", queries), ("k", inputs))
        )
        v = self._of_heads(f"{layer}.attn.v", inputs, channels, seen)
        kept = torch.searchsorted(channels, self.kept[f"{layer}.attn.v"])
        taken = kept
        if attn.sink_logit is not None:
            # A head's first frozen channel carries one instead: the sum of its pattern.
            still = torch.ones(len(channels), device=v.device).index_fill_(0, kept, 0).view(-1, size)
            mass = still.argmax(dim=1) + size * torch.arange(len(heads), device=v.device)
            v = v.clone()
            v[..., mass[still.any(dim=1)]] = 1.0
            taken = torch.cat((kept, mass))
        sink, offsets = (None if x is None else x[heads] for x in (attn.sink_logit, attn.offset_logit))
        if last is None:
            y = causal_attention(q, k, v, len(heads), sink, offsets)
        else:
            y = attention_at(q, k, v, len(heads), sink, last, offsets)
        return y[..., taken]

    def _of_heads(
        self, site: str, inputs: Tensor, channels: Int[Tensor, " channels"], seen: Watch
    ) -> Float[Tensor, "n S channels"]:
        """Activations of q, k or v at the channels of the heads that run. Kept ones of others change nothing."""
        kept, frozen = self.kept[site], self._frozen[site][channels]
        place = torch.searchsorted(channels, kept).clamp(max=len(channels) - 1)
        here = channels[place] == kept
        if not here.any():
            return frozen.expand(*inputs.shape[:-1], len(channels)).contiguous()
        return with_channels(frozen, seen(site, self._sum(site)(inputs))[..., here], place[here])

    def _transformed(self, prompts: Prompts, memory: _Memory, seen: Watch, layer: int, stream: Stream) -> Stream:
        """The residual stream after the MLP, at the positions that it has."""
        hidden, write = (f"{layer}.mlp.{site}" for site in ("post_act", "resid_delta"))
        update, channels = self._frozen[write][:0], self.kept[write]
        if len(channels):
            inputs = self._read(memory, seen, layer, "mlp", stream)
            if len(self.kept[hidden]):
                inputs = seen(hidden, self._sum(hidden)(inputs))
            else:
                inputs = inputs[..., :0]
            update = seen(write, self._sum(write)(inputs))
        return stream.plus(layer, "mlp", self._frozen[write], update, channels)

    def _read(self, memory: _Memory, seen: Watch, layer: int, half: str, stream: Stream) -> Float[Tensor, "n S kept"]:
        """The kept channels of what half a layer reads."""
        site = f"{layer}.{half}.act_in"
        key, channels = self._key(site, after=False), self.kept[site]
        # A narrow stream's tables are the same for all prompts.
        shared = self._tables if self._narrow else memory
        if self._keys is None:
            key = "always"
        return seen(
            site, stream.read(layer, half, channels, lambda what, compute: shared.once((site, what), key, compute))
        )

    def _sum(self, site: str) -> "_Sums":
        if site not in self._sums:
            self._sums[site] = _Sums(site_plan(self._plan, site, self._length), self._model)
        return self._sums[site]


class _Sums:
    """A site's kept channels from what varies (see `SitePlan`)."""

    def __init__(self, plan: SitePlan, model: SparseTransformer) -> None:
        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).float().to(model.device)

        self._weights, self._constants, self._fixed = map(tensor, (plan.weights, plan.constants, plan.fixed))
        self._slots, self._kept = plan.slots, len(plan.kept)
        layer, kind = split_site(plan.site)
        assert layer is not None
        self._activated = model.block(layer).mlp.post_act.activated if kind == "mlp.post_act" else lambda x: x

    def __call__(
        self, inputs: Float[Tensor, "n S inputs"], last: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n S kept"]:
        """last: positions of the prompts that inputs has, if not all."""
        x = self._activated(F.linear(inputs, self._weights) + self._at(self._constants, inputs, last))
        if self._slots is None:
            return x
        fixed = self._at(self._fixed, inputs, last).expand(*x.shape[:-1], -1)
        return abstopk(torch.cat((x, fixed), dim=-1), self._slots)[..., : self._kept]

    @staticmethod
    def _at(values: Float[Tensor, "P R"], inputs: Tensor, last: Tensor | None) -> Tensor:
        """What hangs on the position, where it does."""
        if len(values) == 1:
            return values[0]
        return values[: inputs.shape[1]] if last is None else values[last].unsqueeze(1)
