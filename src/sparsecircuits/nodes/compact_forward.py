"""A circuit's logits at the cost of the circuit.

Where almost every node is frozen at a constant, a matrix has few inputs that vary, a site without kept nodes
need not be computed at all, and the last layer matters at one position. What the same nodes computed in the
call before is used again: sets that differ in one late node share all that comes earlier.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsecircuits.kernels import attention_at, causal_attention
from sparsecircuits.models.sites import Site
from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import in_chunks, pick_answers
from sparsecircuits.nodes.topology import joins
from sparsecircuits.tasks import PairBatch

REMEMBERED = 2  # results per stage and chunk of prompts
MOST_MEMORY = 1 << 30  # bytes that all of them may take


class CompactForward:
    """Runs sets of nodes and edges of a model over one batch of pairs; all else is frozen at constants.

    The logits of a forward pass under `Gating` with gates of 0 and 1, to float32 rounding. Not differentiable;
    the model's weights must not change while it lives.
    """

    @torch.no_grad()
    def __init__(self, model: SparseTransformer, frozen: Float[Tensor, " nodes"], batch: PairBatch) -> None:
        self._model, self._batch = model, batch
        # Over a class every token counts.
        self._answers = slice(None) if batch.over_class else list(batch.answers)
        self._space = NodeSpace.of(model.config)
        self._frozen = frozen.to(model.device)
        order, chunks = in_chunks(batch)
        self._order = torch.from_numpy(order).to(model.device)
        sites = self._space.split(self._frozen)
        self._joins = {}
        for join in joins(model):
            constant = join.weight.detach() @ sites[join.source]
            if join.linear.bias is not None:
                constant = constant + join.linear.bias.detach()[join.offset : join.offset + len(constant)]
            self._joins[join.target] = (join.source, join.weight.detach(), constant)
        bytes_a_stage = 4 * model.config.d_model * sum(chunk.tokens.size for chunk in chunks)
        remember = 4 * model.config.n_layer * REMEMBERED * bytes_a_stage <= MOST_MEMORY
        self._chunks = [_Chunk(model, chunk, remember) for chunk in chunks]

    @torch.no_grad()
    def __call__(self, kept: Bool[Tensor, " nodes"], removed: Edges | None = None) -> Float[Tensor, "n 2"]:
        """Candidate logits of all prompts, in the batch's order; `removed` edges between kept nodes are off."""
        wiring = _Wiring(self._space, self._frozen, self._joins, kept, removed)
        found = torch.cat([self._logits(chunk, wiring) for chunk in self._chunks])
        return torch.empty_like(found).index_copy_(0, self._order, found)

    def _logits(self, chunk: "_Chunk", wiring: "_Wiring") -> Tensor:
        """Candidate logits of a chunk's prompts."""
        model, x = self._model, chunk.embedded
        if wiring.last_reader < 0:
            x = rows_at(x, chunk.last)
        for layer in range(model.config.n_layer):
            x = self._attended(chunk, wiring, layer, x)
            x = self._transformed(chunk, wiring, layer, x)
        hidden = model.ln_f(wiring.gated("final_resid", model.final_resid(x)[..., wiring.kept["final_resid"]]))[:, 0]
        logits = F.linear(hidden, model.lm_head.weight[self._answers], model.logit_bias[self._answers])
        if model.bigram is not None:
            logits = logits + model.bigram.weight[chunk.last_token][:, self._answers]
        return pick_answers(logits, self._batch).float() if self._batch.over_class else logits.float()

    def _attended(self, chunk: "_Chunk", wiring: "_Wiring", layer: int, x: Tensor) -> Tensor:
        """The residual stream after attention: [n, T, D], or [n, 1, D] where only the prompts' last positions matter
        from here on."""
        block, write = self._model.block(layer), f"{layer}.attn.resid_delta"
        last = chunk.last if layer == wiring.last_reader else None

        def compute() -> Tensor:
            stream = block.resid_in(x)
            update = wiring.frozen[write]
            if len(wiring.kept[write]):
                sink, offsets = block.attn.sink_logit, block.attn.offset_logit
                heads = wiring.running_heads(layer, self._model.config.d_head, sink)
                y, varying = self._attention(chunk, wiring, layer, stream, last, heads)
                taken = None
                if sink is not None:
                    taken = wiring.taken_by_sinks(layer, sink, offsets, heads, x.shape[1])
                    taken = taken if last is None else taken[last].unsqueeze(1)
                update = wiring.gated(write, wiring.activations(write, block.attn.resid_delta, y, varying, taken))
            return block.add_attention(stream if last is None else rows_at(stream, last), update)

        return chunk.once((layer, "attention"), wiring.key(write), compute)

    def _attention(
        self, chunk: "_Chunk", wiring: "_Wiring", layer: int, x: Tensor, last: Tensor | None, heads: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the heads that run write, y, at the channels that vary between prompts; and which these are."""
        block, source = self._model.block(layer), f"{layer}.attn.act_in"
        attn, inputs = block.attn, x[..., :0]
        if not len(heads):
            return (x if last is None else x[:, :1])[..., :0], heads
        if len(wiring.kept[source]):
            full = chunk.once(
                (layer, "attn.act_in"),
                wiring.key_before(source),
                lambda: attn.act_in(block.attention_read(x, chunk.positions)),
            )
            inputs = full[..., wiring.kept[source]]
        channels = _channels_of(heads, self._model.config.d_head)
        queries = inputs if last is None else rows_at(inputs, last)
        q, k, v = (
            wiring.site(f"{layer}.attn.{name}", site, read, channels)
            for name, site, read in (("q", attn.q, queries), ("k", attn.k, inputs), ("v", attn.v, inputs))
        )
        sink, offsets = (None if x is None else x[heads] for x in (attn.sink_logit, attn.offset_logit))
        if last is None:
            y = causal_attention(q, k, v, len(heads), sink, offsets)
        else:
            y = attention_at(q, k, v, len(heads), sink, last, offsets)
        # What a sink leaves of a frozen value depends on the prompt too.
        varying = wiring.kept[f"{layer}.attn.v"] if sink is None else channels
        return y[..., torch.searchsorted(channels, varying)], varying

    def _transformed(self, chunk: "_Chunk", wiring: "_Wiring", layer: int, x: Tensor) -> Tensor:
        """The residual stream after the MLP, at the rows that x has."""
        source, hidden, write = (f"{layer}.mlp.{site}" for site in ("act_in", "post_act", "resid_delta"))
        block = self._model.block(layer)
        positions = chunk.positions if layer < wiring.last_reader else chunk.last_position

        def compute() -> Tensor:
            update = wiring.frozen[write]
            if len(wiring.kept[write]):
                inputs = x[..., :0]
                if len(wiring.kept[source]):
                    full = chunk.once(
                        (layer, "mlp.act_in"),
                        wiring.key_before(source),
                        lambda: block.mlp.act_in(block.mlp_read(x, positions)),
                    )
                    inputs = full[..., wiring.kept[source]]
                neurons = x[..., :0]
                if len(wiring.kept[hidden]):
                    neurons = wiring.activations(hidden, block.mlp.post_act, inputs, wiring.kept[source])
                written = wiring.activations(write, block.mlp.resid_delta, neurons, wiring.kept[hidden])
                update = wiring.gated(write, written)
            return block.add_mlp(x, update)

        return chunk.once((layer, "mlp"), wiring.key(write), compute)


class _Chunk:
    """Some prompts of similar length, and what was computed on them."""

    def __init__(self, model: SparseTransformer, batch: PairBatch, remember: bool) -> None:
        tokens = torch.from_numpy(batch.tokens).to(model.device)
        self.last = torch.from_numpy(batch.last).to(model.device)
        self.last_token = rows_at(tokens, self.last)[:, 0]
        self.embedded, self.positions = model.embed(tokens)
        self.last_position = None if self.positions is None else self.positions[self.last].unsqueeze(1)
        self._remember = remember
        self._stages: dict[Hashable, OrderedDict[Hashable, Tensor]] = {}

    def once(self, stage: Hashable, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """compute(), or what it gave for the same key when that was not long ago."""
        if not self._remember:
            return compute()
        known = self._stages.setdefault(stage, OrderedDict())
        if key not in known:
            value = compute()
            known[key] = value
            while len(known) > REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]


def _seen(
    offsets: Float[Tensor, "H N"] | None, heads: Int[Tensor, " heads"], length: int, like: Tensor
) -> Float[Tensor, "T heads"]:
    """Log of the sum over the keys that each position sees of exp(what is added to their scores)."""
    by_offset = like.new_zeros(len(heads), length)
    if offsets is not None:
        near = offsets[heads, :length]
        by_offset[:, : near.shape[1]] = near
    return by_offset.logcumsumexp(dim=1).T


class _Wiring:
    """What of a model varies with the prompt when these nodes and edges run: columns of its matrices."""

    def __init__(
        self,
        space: NodeSpace,
        frozen: Tensor,
        found: dict[str, tuple[str, Tensor, Tensor]],
        kept: Bool[Tensor, " nodes"],
        removed: Edges | None,
    ) -> None:
        self._space, self._joins, device = space, found, frozen.device
        self._mask = kept
        self.frozen = space.split(frozen)
        self.kept = {site: mask.nonzero().flatten().to(device) for site, mask in space.split(kept).items()}
        writes = enumerate(site for site in self.kept if site.endswith("attn.resid_delta"))
        # The last layer whose attention writes what varies, -1 if none: after it only the last position matters.
        self.last_reader = max((layer for layer, site in writes if len(self.kept[site])), default=-1)
        self._removed = None if removed is None or not len(removed) else removed[removed.between(kept)]
        self._keys: dict[int, Hashable] = {}
        self._products: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def key(self, site: str) -> Hashable:
        """Equal for sets that agree on all nodes, and on edges into them, up to the end of a site, and on which
        positions matter."""
        return self._key(self._space.slices[site].stop)

    def key_before(self, site: str) -> Hashable:
        """The same up to the beginning of a site."""
        return self._key(self._space.slices[site].start)

    def _key(self, stop: int) -> Hashable:
        if stop not in self._keys:
            edges: tuple[bytes, ...] = ()
            if self._removed is not None:
                early = self._removed.target < stop
                edges = (self._removed.source[early].numpy().tobytes(), self._removed.target[early].numpy().tobytes())
            self._keys[stop] = (self.last_reader, self._mask[:stop].nonzero().numpy().tobytes(), *edges)
        return self._keys[stop]

    def running_heads(self, layer: int, size: int, sink: Tensor | None) -> Int[Tensor, " running"]:
        """Heads whose output varies between prompts. A frozen value is the same at all positions, so any mean of it is
        too; with a sink, which takes a share of the mean, the pattern must be frozen as well."""
        sites = "v" if sink is None else "qkv"
        kept = torch.cat([self.kept[f"{layer}.attn.{site}"] for site in sites])
        heads: Tensor = (kept // size).unique()
        return heads

    def taken_by_sinks(
        self,
        layer: int,
        sink: Float[Tensor, " H"],
        offsets: Float[Tensor, "H N"] | None,
        running: Int[Tensor, " running"],
        length: int,
    ) -> Float[Tensor, "T D"]:
        """What sinks take, at each position, from the writes of the heads that do not run: their scores depend on
        nothing but the offset, so it is the same in every prompt."""
        size = self.frozen[f"{layer}.attn.v"].numel() // len(sink)
        idle = (
            torch.ones(len(sink), dtype=torch.bool, device=sink.device).index_fill_(0, running, False).nonzero()[:, 0]
        )
        channels = _channels_of(idle, size)
        q, k, v = (self.frozen[f"{layer}.attn.{site}"][channels].view(-1, size) for site in "qkv")
        score = (q * k).sum(dim=1) * size**-0.5
        share = torch.sigmoid(_seen(offsets, idle, length, score) + score - sink[idle])
        weight = self._joins[f"{layer}.attn.resid_delta"][1][:, channels].unflatten(1, (-1, size))
        return (share - 1) @ torch.einsum("dhs,hs->hd", weight, v)

    def activations(
        self,
        target: str,
        site: Site,
        inputs: Float[Tensor, "... varying"],
        varying: Int[Tensor, " varying"],
        added: Float[Tensor, "... width"] | None = None,
    ) -> Float[Tensor, "... kept"]:
        """What a matrix and then its target's site give at the target's kept channels. inputs: at the `varying`
        channels of the matrix's source (the same ones in each call), the others being frozen; `added` to what it gives.
        """
        if target not in self._products:
            self._products[target] = self._product(target, site, varying, added is not None)
        columns, constant, channels, place = self._products[target]
        pre = F.linear(inputs, columns, constant)
        x: Tensor = site(pre if added is None else pre + added[..., channels], channels)
        return x[..., place]

    def _product(
        self, target: str, site: Site, varying: Int[Tensor, " varying"], all_vary: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows of a matrix at the channels that decide what the kept ones are: (weights [channels, varying], what all
        else adds [channels], channels, the kept ones' places among them).

        A channel that no varying input reaches is one constant, unless all_vary; of these only the k largest can ever
        be among the site's k largest.
        """
        columns, constant = self._columns(target, varying)
        kept = self.kept[target]
        if site.k is None:
            channels = kept
        else:
            varies = torch.full_like(constant, all_vary, dtype=torch.bool) | (columns != 0).any(dim=1)
            varies[kept] = True
            still = (~varies).nonzero().flatten()
            strength = site.activated(constant[still]).abs()
            strongest = still[strength.sort(descending=True, stable=True).indices[: site.k]]
            channels = torch.cat((varies.nonzero().flatten(), strongest)).sort().values
        return columns[channels], constant[channels], channels, torch.searchsorted(channels, kept)

    def _columns(self, target: str, varying: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix [targets, varying], and what all else adds [targets]: a removed edge carries its source's frozen
        value."""
        source, weight, constant = self._joins[target]
        columns = weight[:, varying]
        constant = constant - columns @ self.frozen[source][varying]
        if self._removed is None:
            return columns, constant
        from_, to = self._space.slices[source], self._space.slices[target]
        off = self._removed[self._removed.joining(from_, to)]
        rows, sources = (off.target - to.start).to(columns.device), (off.source - from_.start).to(columns.device)
        columns[rows, torch.searchsorted(varying, sources)] = 0
        return columns, constant.index_add(0, rows, off.weight.to(columns) * self.frozen[source][sources])

    def gated(self, site: str, x: Float[Tensor, "... kept"]) -> Float[Tensor, "... width"]:
        """Frozen values everywhere but at the kept channels, which are x."""
        channels = self.kept[site]
        return x if len(channels) == len(self.frozen[site]) else _with_channels(self.frozen[site], x, channels)

    def site(self, target: str, module: Site, inputs: Tensor, channels: Tensor) -> Float[Tensor, "n T channels"]:
        """Activations of q, k or v at some channels (in order), given the kept inputs of its layer."""
        kept = self.kept[target]
        place = torch.searchsorted(channels, kept).clamp(max=len(channels) - 1)
        here = channels[place] == kept
        if not here.any():
            return self.frozen[target][channels].expand(*inputs.shape[:-1], len(channels))
        x = self.activations(target, module, inputs, self.kept[self._joins[target][0]])
        return _with_channels(self.frozen[target][channels], x[..., here], place[here])


def _channels_of(heads: Int[Tensor, " H"], size: int) -> Int[Tensor, " channels"]:
    return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()


def _with_channels(frozen: Float[Tensor, " width"], x: Float[Tensor, "... varying"], place: Tensor) -> Tensor:
    """Frozen values [..., width], but x at some places."""
    out = frozen.to(x.dtype).expand(*x.shape[:-1], -1).clone()
    out[..., place] = x
    return out
