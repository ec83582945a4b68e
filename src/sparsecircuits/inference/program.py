"""A circuit as a program: one Python file without dependencies that computes what the circuit alone computes.

Everything that is frozen is folded into constants, so that a line is left for each node. Where a circuit reads only
tokens (in layer 0), what a read is on each token is a table.
"""

import textwrap
from collections.abc import Mapping

import numpy as np

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.errors import UserError
from sparsecircuits.inference.program_helpers import HELPERS
from sparsecircuits.inference.program_text import VARIABLES, WIDTH, Text, number, packed, variable
from sparsecircuits.kernels.rms_norm import EPSILON
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.names import split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.plans.contests import SitePlan, running_heads, site_plan


def check_exportable(bound: Bound) -> None:
    """Raise UserError for a circuit or a model that programs are not written for."""
    config, circuit = bound.model.config, bound.circuit
    if circuit.loss == "class":
        raise UserError("this circuit scores one answer against all other tokens: a program has two scores")
    if circuit.ablation == "resample":
        raise UserError(
            "this circuit's other nodes carry what they are on other prompts: a program has no other prompt"
        )
    if config.norm != "rms" or (config.concatenates_positions and config.position_norm != "rms"):
        raise UserError("programs are written for models with RMSNorm alone")
    cut = any(config.abstopk_k(site) is not None for site in ("resid_mid", "resid_out"))
    if config.residual_activation != "identity" or cut:
        raise UserError(
            "programs are written for models whose residual stream is a sum: no activation, no AbsTopK on it"
        )


def write_program(bound: Bound, words: Mapping[str, str], title: str) -> str:
    """The program. words: what each node fires on, by name. title: the first line of its docstring. Raises UserError
    for a circuit that programs are not written for."""
    check_exportable(bound)
    return _Writer(bound, words).program(title)


class _Writer:
    def __init__(self, bound: Bound, words: Mapping[str, str]) -> None:
        self.bound, self.words = bound, words
        self.plan = bound.plan
        self.config: ModelConfig = self.plan.config
        self.text = Text()
        self.helpers: set[str] = set()
        self.waiting = np.zeros(self.config.d_model)  # what is to be added to the stream before it is read
        self.given = ""  # what `inputs` is at this place of the program
        model: SparseTransformer = bound.model
        self.answers = [_answer(model, answer) for answer in bound.circuit.answers]
        layers = range(self.config.n_layer)
        self.readers = [layer for layer in layers if len(self.plan.varying[f"{layer}.attn.resid_delta"])]
        self.last_reader = max(self.readers, default=-1)
        self.lookers = [layer for layer in layers if len(self.plan.varying[f"{layer}.mlp.resid_delta"])]
        self.tables = self.last_reader <= 0 and not self.lookers and self._tokens_decide()

    def _tokens_decide(self) -> bool:
        """Whether AbsTopK lets all through that attention reads in layer 0: then a read is the token's alone."""
        if self.config.positions == "added" or not self.readers:
            return not self.readers
        k = self.config.abstopk_k("attn.act_in")
        most = int(np.bincount(self.plan.embedding.rows, minlength=1).max(initial=0))
        return k is None or most + self.config.d_in - self.config.d_model <= k

    def program(self, title: str) -> str:
        """All of the text."""
        self._body()
        text, circuit = self.text, self.bound.circuit
        nodes, edges = len(circuit.nodes), len(circuit.edges)
        about = (
            f"{nodes} nodes and {edges} weights of a model with {self.config.n_layer} layers; every other node is held "
            f"at {'its mean' if circuit.ablation == 'mean' else 'zero'}, which is folded into the numbers here. "
            f"predict(tokens) gives the scores of {circuit.answers[0]!r} and {circuit.answers[1]!r} after a prompt, "
            "calibrated as the circuit is. Written by `sparsecircuits export --to python`."
        )
        head = [f'"""{title}', "", *textwrap.wrap(about, WIDTH), '"""', ""]
        imports = ["import base64"] if "numbers" in self.helpers else []
        imports += ["import math"]
        imports += ["import struct"] if "numbers" in self.helpers else []
        head += [*imports, ""]
        body = [
            "", "def predict(tokens: list[int]) -> tuple[float, float]:",
            f'    """Scores of {circuit.answers[0]!r} and {circuit.answers[1]!r} as the next token."""',
            f"    if not 0 < len(tokens) <= {self.config.n_ctx}:",
            f'        raise ValueError(f"{{len(tokens)}} tokens, not 1 to {self.config.n_ctx}")',
            f"    if not all(0 <= token < {self.config.vocab_size} for token in tokens):",
            f'        raise ValueError("a token outside 0..{self.config.vocab_size - 1}")',
            *text.lines, "",
        ]  # fmt: skip
        used = [HELPERS[name] for name in HELPERS if name in self.helpers]
        data = ["", "# What is not for reading: rivals for AbsTopK's places, and tables."] if text.data else []
        data += [f"{name} = {value}" for name, value in text.data.items()]
        return "\n".join([*head, *body, *used, *data]).rstrip() + "\n"

    def _body(self) -> None:
        if not self.tables:
            self._start_stream()
        for layer in range(self.config.n_layer):
            if layer in self.readers:
                self._attention(layer)
            elif not self.tables and 2 * layer < self._last_read():
                self._frozen_write(layer, "attn.resid_delta")
            if layer in self.lookers:
                self._mlp(layer)
            elif not self.tables and 2 * layer + 1 < self._last_read():
                self._frozen_write(layer, "mlp.resid_delta")
        self._answers()

    def _last_read(self) -> int:
        """The last half of a layer that reads the stream, counted from 0; -1 if none does."""
        return max([*(2 * layer for layer in self.readers), *(2 * layer + 1 for layer in self.lookers)], default=-1)

    # The residual stream, where it is needed as a whole

    def _start_stream(self) -> None:
        self.helpers |= {"embedding", "numbers", "read"}
        embedding, text = self.plan.embedding, self.text
        counts = np.bincount(embedding.rows, minlength=embedding.shape[0])
        text.data["EMBEDDING"] = (
            f"list(embeddings({_quoted(packed(counts))}, {_quoted(packed(embedding.columns))}, "
            f"{_quoted(packed(embedding.values))}, {self.config.d_model}))"
        )
        text.comment("The residual stream: what each token's embedding is, to which every layer adds.")
        added = self.plan.vector("wpe.weight") if self.config.positions == "added" else None
        if added is None:
            text.say("stream = [list(EMBEDDING[token]) for token in tokens]")
        else:
            self._matrix("POSITIONS", added)
            text.say(
                "stream = [[a + b for a, b in zip(EMBEDDING[token], row)] for token, row in zip(tokens, POSITIONS)]"
            )

    def _matrix(self, name: str, rows: np.ndarray) -> None:
        self.helpers.add("numbers")
        self.text.data[name] = f"numbers({_quoted(packed(rows))}, {rows.shape[1]})"

    def _vector(self, name: str, values: np.ndarray) -> None:
        self.helpers.add("numbers")
        self.text.data[name] = f"numbers({_quoted(packed(values))})"

    def _frozen_write(self, layer: int, site: str) -> None:
        """What a half of a layer adds when nothing of it varies: it is added when the stream is read again."""
        values = self.plan.frozen[f"{layer}.{site}"].astype(np.float64)
        values[self.plan.varying[f"{layer}.{site}"]] = 0
        self.waiting = self.waiting + values

    def _add(self, name: str, writes: str) -> None:
        """Add to the stream what waits to be, and writes, a list of what is written at each position."""
        self.helpers |= {"add", "numbers"}
        self._vector(f"ADDED_{name}", self.waiting)
        self.waiting = np.zeros_like(self.waiting)
        self.text.say(f"add(stream, ADDED_{name}, {writes})")

    def _reads(self, layer: int, half: str, place_of: str = "place") -> None:
        """Reads of all positions in the stream, as the list `normed`. place_of: the expression for a position."""
        if self.waiting.any():
            self._add(f"BEFORE_{layer}_{half.upper()}", "[{}] * len(stream)")
        norm, place = ("ln_1", 0) if half == "attn" else ("ln_2", 1)
        gains = self.plan.vector(f"blocks.{layer}.{norm}.weight")
        assert gains is not None
        name = f"GAINS_{layer}_{half.upper()}"
        self._vector(name, gains)
        beside = "()"
        if self.config.concatenates_positions:
            from sparsecircuits.inference.shell import position_channels

            table = position_channels(self.plan)[2 * layer + place]
            self._matrix(f"POSITIONS_{layer}_{half.upper()}", table)
            beside = f"POSITIONS_{layer}_{half.upper()}[{place_of}]"
        k = self.config.abstopk_k(f"{half}.act_in")
        self.text.say(f"normed = [read(x, {name}, {beside}, {k}) for place, x in enumerate(stream)]")

    # Nodes

    def _node(self, name: str, terms: list[str], around: str = "{}") -> None:
        """A node's line, with what it is in a comment behind it, or above it where that is too long."""
        what = f"{name} {self.words.get(name, '')}".strip()
        self.text.sum(variable(name), terms, around, what)

    def _sums(self, site: SitePlan, position: str, activation: str = "") -> None:
        """A line for each kept channel of a site. position: the expression for where constants that depend on it are
        looked up."""
        text = self.text
        names = [variable(name) for name in site.inputs]
        by_position = len(site.constants) > 1
        if site.slots is not None:
            self._rivals(site)
        inputs = f"({', '.join(names)}{',' if len(names) == 1 else ''})"
        if site.slots is not None and site.inputs and self.given != inputs:
            text.say(f"inputs = {inputs}")
            self.given = inputs
        if by_position:
            base = _rivals_name(site.site).replace("RIVALS", "BASES")
            self._matrix(base, site.constants[:, : len(site.kept)])
        for row, channel in enumerate(site.kept):
            node = f"{site.site}.{channel}"
            constant = f"{base}[{position}][{row}]" if by_position else number(site.constants[0, row])
            terms = [f"{number(w)} * {name}" for w, name in zip(site.weights[row], names, strict=True) if w]
            if constant not in ("0.0", "-0.0") or not terms:
                terms = [constant, *terms]
            around = f"{activation}({{}})" if activation else "{}"
            if site.slots is not None:
                self.helpers |= {"kept"} | ({"numbers"} if site.fixed.size else set())
                given = "inputs" if site.inputs else "()"
                more = f", {activation}" if activation else ""
                around = f"kept({around}, {row}, {_rivals_name(site.site)}, {given}, {position}{more})"
            self._node(node, terms, around)

    def _rivals(self, site: SitePlan) -> None:
        rows = []
        for weights, constants in zip(site.weights, site.constants.T, strict=True):
            by_position = np.ptp(constants) > 1e-9
            shown = f"numbers({_quoted(packed(constants))})" if by_position else f"[{number(constants[0])}]"
            if by_position:
                self.helpers.add("numbers")
            inputs = ", ".join(f"({place}, {number(w)})" for place, w in enumerate(weights) if w)
            rows.append(f"({shown}, ({inputs}{',' if inputs else ''}))")
        fixed = "[()]"
        if site.fixed.size:
            self.helpers.add("numbers")
            fixed = f"numbers({_quoted(packed(site.fixed))}, {site.fixed.shape[1]})"
        self.text.data[_rivals_name(site.site)] = f"({site.slots}, {fixed}, ({', '.join(rows)},))"

    def _table_reads(self, layer: int) -> None:
        """Reads of layer 0 as tables of tokens and waves of the position."""
        text, config = self.text, self.config
        embedding = self.plan.embedding
        gains = self.plan.vector(f"blocks.{layer}.ln_1.weight")
        assert gains is not None
        squares = np.bincount(embedding.rows, embedding.values.astype(np.float64) ** 2, minlength=config.vocab_size)
        scale = 1 / np.sqrt(squares / config.d_model + EPSILON)
        for channel in self.plan.varying[f"{layer}.attn.act_in"]:
            node = f"{layer}.attn.act_in.{channel}"
            name = variable(node)
            if channel >= config.d_model:
                self._node(node, [self._wave(layer, int(channel) - config.d_model)])
                continue
            here = embedding.columns == channel
            tokens = embedding.rows[here]
            values = embedding.values[here].astype(np.float64) * scale[tokens] * gains[channel]
            entries = ", ".join(f"{t}: {number(v)}" for t, v in zip(tokens.tolist(), values.tolist(), strict=True))
            text.data[name.upper()] = f"{{{entries}}}"
            self._node(node, [f"{name.upper()}.get(token, 0.0)"])

    def _wave(self, layer: int, channel: int) -> str:
        """A position channel that is read: a sine of the position, or a table."""
        from sparsecircuits.inference.shell import position_channels

        table = position_channels(self.plan)[2 * layer, :, channel].astype(np.float64)
        width = self.config.d_in - self.config.d_model
        if self.config.positions == "concat_sinusoidal":
            frequency = float(np.exp(np.float32(channel // 2 * 2) * np.float32(-np.log(10000.0) / width)))
            wave = (np.sin if channel % 2 == 0 else np.cos)(np.arange(len(table)) * frequency)
            size = float(table @ wave / (wave @ wave))
            if np.abs(size * wave - table).max() < 5e-6:
                return f"{number(size)} * math.{'sin' if channel % 2 == 0 else 'cos'}({number(frequency)} * place)"
        name = f"POSITION_{layer}_{channel}"
        self._vector(name, table)
        return f"{name}[place]"

    def _attention(self, layer: int) -> None:
        """Everything from reads to writes of a layer's attention; `stream` has the writes added."""
        text, plan = self.text, self.plan
        heads, only_last = running_heads(plan, layer), layer == self.last_reader
        sites = {
            name: site_plan(plan, f"{layer}.attn.{name}") for name in "qkv" if f"{layer}.attn.{name}" in plan.products
        }
        text.say()
        text.comment(f"Layer {layer}, attention: what each token has to offer.")
        offered = [variable(f"{layer}.attn.{name}.{channel}") for name in sites for channel in sites[name].kept]
        if offered:
            text.say("offers = []")
        if not self.tables:
            self._reads(layer, "attn")
        text.say("for place, token in enumerate(tokens):")
        text.indent += 1
        if self.tables:
            self._table_reads(layer)
        else:
            self._stream_reads(layer, "attn", "place")
        for name in sites:
            self._sums(sites[name], "place")
        if offered:
            comma = "," if len(offered) == 1 else ""
            text.say(f"offers.append(({', '.join(offered)}{comma}))")
            text.indent -= 1
            text.say(f"{', '.join(f'{name}s' for name in offered)}{comma} = zip(*offers)")
        else:
            text.indent -= 1
        if not only_last:
            text.say("writes = []")
            text.say("for here in range(len(tokens)):")
            text.indent += 1
        else:
            text.say("here = len(tokens) - 1")
        for head in heads:
            self._head(layer, head, sites)
        writes = site_plan(plan, f"{layer}.attn.resid_delta")
        self._sums(writes, "here")
        self._add_writes(layer, "attn.resid_delta", writes, only_last)

    def _head(self, layer: int, head: int, sites: dict[str, SitePlan]) -> None:
        """A head's pattern and what it carries, at the position `here`."""
        text, plan, size = self.text, self.plan, self.config.d_head
        first = head * size
        frozen = {name: plan.frozen[f"{layer}.attn.{name}"][first : first + size].astype(np.float64) for name in "qk"}
        kept = {
            name: [int(c) for c in (sites[name].kept if name in sites else ()) if first <= c < first + size]
            for name in "qkv"
        }
        scale = size**-0.5
        constant, terms = 0.0, []
        for c in range(first, first + size):
            q, k = frozen["q"][c - first], frozen["k"][c - first]
            query, key = (variable(f"{layer}.attn.{name}.{c}") + "s" for name in "qk")
            if c in kept["q"] and c in kept["k"]:
                terms.append(f"{number(scale)} * {query}[here] * {key}[t]")
            elif c in kept["q"] and k:
                terms.append(f"{number(scale * k)} * {query}[here]")
            elif c in kept["k"] and q:
                terms.append(f"{number(scale * q)} * {key}[t]")
            else:
                constant += scale * q * k
        sinks = plan.vector(f"blocks.{layer}.attn.sink_logit")
        self.helpers.add("softmax")
        offsets, near = plan.vector(f"blocks.{layer}.attn.offset_logit"), ""
        if offsets is not None:
            listed = ", ".join(number(x) for x in offsets[head])
            text.say(f"near = [{listed}]  # added to the latest tokens' scores, this one's first")
            near = f" + (near[here - t] if here - t < {offsets.shape[1]} else 0)"
        text.comment(
            f"Head {layer}.{head}: how much of its attention each token gets"
            + (", beside a sink that takes the rest." if sinks is not None else ".")
        )
        joined = " + ".join([number(constant), *terms]).replace("+ -", "- ")
        sink = "None" if sinks is None else number(sinks[head])
        text.say(f"shares = softmax([{joined}{near} for t in range(here + 1)], {sink})")
        for c in kept["v"]:
            node = f"{layer}.attn.v.{c}"
            text.say(f"{variable(node)} = sum(share * x for share, x in zip(shares, {variable(node)}s))")
        if sinks is not None:
            text.say(f"mass{layer}_{head} = sum(shares)")

    def _stream_reads(self, layer: int, half: str, where: str) -> None:
        for channel in self.plan.varying[f"{layer}.{half}.act_in"]:
            node = f"{layer}.{half}.act_in.{channel}"
            self._node(node, [f"normed[{where}][{channel}]"])

    def _add_writes(self, layer: int, site: str, writes: SitePlan, only_last: bool) -> None:
        """Put a half's writes into the stream, if anything reads it again; within the loop over positions if there is
        one, which ends here."""
        text = self.text
        pairs = ", ".join(f"{c}: {variable(f'{layer}.{site}.{c}')}" for c in writes.kept)
        if not only_last:
            text.say(f"writes.append({{{pairs}}})")
            text.indent -= 1
        if self.tables:
            return
        if only_last and len(self.readers) and layer == self.last_reader and site.startswith("attn"):
            text.comment("From here on only the last token matters.")
            text.say("stream = stream[-1:]")
        self._frozen_write(layer, site)
        self._add(f"{layer}_{site.split('.')[0].upper()}", "writes" if not only_last else f"[{{{pairs}}}]")

    def _mlp(self, layer: int) -> None:
        text, plan = self.text, self.plan
        only_last = layer >= self.last_reader
        neurons = site_plan(plan, f"{layer}.mlp.post_act") if f"{layer}.mlp.post_act" in plan.products else None
        writes = site_plan(plan, f"{layer}.mlp.resid_delta")
        text.say()
        text.comment(f"Layer {layer}, MLP" + (", at the last token." if only_last else "."))
        if only_last and layer != self.last_reader:  # after attention it is cut already
            text.say("stream = stream[-1:]")
        self._reads(layer, "mlp", "len(tokens) - 1" if only_last else "place")
        if not only_last:
            text.say("writes = []")
            text.say("for here in range(len(tokens)):")
            text.indent += 1
        else:
            text.say("here = 0")
        self._stream_reads(layer, "mlp", "here")
        if neurons is not None:
            self.helpers.add(self.config.activation)
            self._sums(neurons, "0", self.config.activation)
        self._sums(writes, "0")
        self._add_writes(layer, "mlp.resid_delta", writes, only_last)

    # The end

    def _answers(self) -> None:
        """Scores from the last position of the stream."""
        text, plan, config = self.text, self.plan, self.config
        kept = plan.varying["final_resid"]
        gains, shift = plan.vector("ln_f.weight"), plan.vector("logit_bias")
        assert gains is not None
        assert shift is not None
        text.say()
        text.comment("The end of the residual stream at the last token, and the answers' logits.")
        text.say("token = tokens[-1]")
        for channel in kept:
            self._final(int(channel))
        frozen = plan.frozen["final_resid"].astype(np.float64).copy()
        frozen[kept] = 0
        squares = [f"final_{c} ** 2" for c in kept]
        total = " + ".join([number(float(frozen @ frozen)), *squares])
        text.say(f"scale = 1 / math.sqrt(({total}) / {config.d_model} + {EPSILON!r})")
        names = []
        circuit = self.bound.circuit
        for place, answer in enumerate(self.answers):
            row = np.zeros(config.d_model)
            here = plan.unembedding.rows == answer
            row[plan.unembedding.columns[here]] = plan.unembedding.values[here]
            row = row * gains
            terms = [number(float(row @ frozen)), *(f"{number(row[c])} * final_{c}" for c in kept if row[c])]
            inner = " + ".join(terms).replace("+ -", "- ")
            bigram = self._bigram(answer, place)
            name = "first" if place == 0 else "second"
            constant = number(float(shift[answer]))
            terms = [constant, *([bigram] if bigram else []), f"scale * ({inner})"]
            text.sum(name, terms, what=repr(circuit.answers[place]))
            names.append(f"{number(circuit.scale)} * {name} + {number(circuit.shift[place])}".replace("+ -", "- "))
        text.say(f"return {', '.join(names)}")

    def _bigram(self, answer: int, place: int) -> str:
        """What the token itself says of an answer."""
        table = self.plan.vector("bigram.weight")
        if table is not None:
            column = table[:, answer]
        elif self.plan.bigram is not None:
            here = self.plan.bigram.columns == answer
            column = np.zeros(self.config.vocab_size, np.float32)
            column[self.plan.bigram.rows[here]] = self.plan.bigram.values[here]
        else:
            return ""
        self._vector(f"BIGRAM_{place}", column)
        return f"BIGRAM_{place}[token]"

    def _final(self, channel: int) -> None:
        """A channel of the stream's end."""
        plan, node, text = self.plan, f"final_resid.{channel}", self.text
        if not self.tables:
            constant = 0.0
            for half in range(self._last_read() + 1, 2 * self.config.n_layer):
                site = f"{half // 2}.{('attn', 'mlp')[half % 2]}.resid_delta"
                constant += float(plan.frozen[site][channel])
            self._node(node, [f"stream[-1][{channel}]", *([number(constant)] if constant else [])])
            return
        terms, constant = [], 0.0
        for layer in range(self.config.n_layer):
            for name in ("attn.resid_delta", "mlp.resid_delta"):
                if channel in plan.varying[f"{layer}.{name}"]:
                    terms.append(variable(f"{layer}.{name}.{channel}"))
                else:
                    constant += float(plan.frozen[f"{layer}.{name}"][channel])
        here = plan.embedding.columns == channel
        if here.any():
            pairs = zip(plan.embedding.rows[here].tolist(), plan.embedding.values[here].tolist(), strict=True)
            text.data[f"EMBEDDED_{channel}"] = f"{{{', '.join(f'{t}: {number(v)}' for t, v in pairs)}}}"
            terms.append(f"EMBEDDED_{channel}.get(token, 0.0)")
        if self.config.positions == "added":
            added = plan.vector("wpe.weight")
            assert added is not None
            self._vector(f"POSITIONED_{channel}", added[:, channel])
            terms.append(f"POSITIONED_{channel}[len(tokens) - 1]")
        self._node(node, [*([number(constant)] if constant else []), *terms])


def _answer(model: SparseTransformer, answer: str) -> int:
    if model.tokenizer is None:
        raise UserError("the model has no tokenizer: load it with sparsecircuits.load_model")
    return model.tokenizer.single_token(answer)


def _rivals_name(site: str) -> str:
    layer, kind = split_site(site)
    return f"RIVALS_{VARIABLES[kind].upper()}_{layer}"


def _quoted(text: str) -> str:
    return f'"{text}"'
