"""What the picture of a circuit shows, computed from circuit, model and task."""

import torch

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.extraction import by_site
from sparsecircuits.circuits.losses import circuit_logits
from sparsecircuits.circuits.residual import residual_links
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.hooks import record
from sparsecircuits.models.sites import split_node
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.nodes.recording import head_pattern
from sparsecircuits.nodes.task_loss import all_candidate_logits
from sparsecircuits.tasks import PairBatch, Task
from sparsecircuits.viewer.examples import rounded
from sparsecircuits.viewer.peek import file_payload
from sparsecircuits.viewer.schema import (
    Answer,
    AnswerWeight,
    EmbeddingWeight,
    EndOrder,
    HeadPatterns,
    ModelFacts,
    Payload,
    Prompt,
    ResidualLink,
)

SHOWN_PAIRS = 4
PATTERN_DIGITS = 3  # decimals: a share is shown in percent with one
END_PAIRS = 24  # held-out pairs on which nodes are compared at the last token
MOST_RECORDED = 400  # nodes; of a larger circuit the page asks for activations one node at a time


def picture_payload(model: SparseTransformer, circuit: Circuit, task: Task) -> Payload:
    """The payload of `render_html`. Activations are those of the circuit alone (nodes outside frozen) on a
    few short held-out pairs. Raises UserError when the circuit belongs to another model."""
    circuit.check_model(model)
    batch = shown_pairs(task)
    activations, attention = run_circuit(model, circuit, batch)
    ids = [row[: last + 1].tolist() for row, last in zip(batch.tokens, batch.last, strict=True)]
    full = all_candidate_logits(model, batch)
    alone = circuit_logits(model, circuit, batch)
    tokenizer = task.tokenizer
    assert tokenizer is not None
    file = file_payload(circuit)
    return file.extended(
        description=task.description,
        model=_model(model, circuit),
        answers=[Answer(text=text, id=token) for text, token in zip(task.answers, task.answer_ids, strict=True)],
        nodes=[node.extended(activations=activations.get(node.name, [])) for node in file.nodes],
        residual=[
            ResidualLink(source=source, target=target)
            for source, target in residual_links(circuit.node_names, model.config.d_model)
        ],
        embedding=_embedding(model, circuit, sorted({token for row in ids for token in row}), tokenizer),
        logits=_logits(model, circuit, task.answer_ids),
        prompts=[
            Prompt(
                tokens=[tokenizer.token(token) for token in row],
                text=tokenizer.decode(row),
                answer=int(batch.correct[place]),
                full=full[place].tolist(),
                circuit=alone[place].tolist(),
            )
            for place, row in enumerate(ids)
        ],
        attention=attention,
        ends=end_order(model, circuit, task.batch("held_out", END_PAIRS)),
    )


def shown_pairs(task: Task) -> PairBatch:
    """The shortest of some held-out pairs: what a person can read at a glance."""
    pairs = sorted(task.draw("held_out", 48), key=lambda pair: (len(pair.left), pair.left))
    first = max(0, min(4, len(pairs) - SHOWN_PAIRS))
    return task.encode(pairs[first : first + SHOWN_PAIRS])


def _model(model: SparseTransformer, circuit: Circuit) -> ModelFacts:
    parameters, nonzeros = count_parameters(model)
    config = model.config
    return ModelFacts(
        name=circuit.model_name,
        id=circuit.model_id,
        n_layer=config.n_layer,
        d_model=config.d_model,
        n_head=config.heads,
        d_head=config.d_head,
        parameters=parameters,
        nonzeros=nonzeros,
    )


@torch.no_grad()
def run_circuit(
    model: SparseTransformer, circuit: Circuit, batch: PairBatch
) -> tuple[dict[str, list[list[float]]], list[HeadPatterns]]:
    """Activations of the kept nodes [prompt][token], and patterns of the heads they lie in: of the circuit
    alone ("patterns": kept channels only) and of the whole model ("patterns_full": all channels)."""
    tokens = torch.from_numpy(batch.tokens).to(model.device)
    with circuit.gating(model).over(model, batch), record(model) as seen:
        model.final_hidden(tokens)
    with record(model, r"\d+\.attn\.[qk]") as seen_full:
        model.final_hidden(tokens)
    lengths = (batch.last + 1).tolist()
    names = circuit.node_names if len(circuit.nodes) <= MOST_RECORDED else []
    activations = {name: node_rows(seen, name, lengths) for name in names}
    heads = sorted({(n.layer, n.head) for n in circuit.nodes if n.layer is not None and n.head is not None})
    attention = [
        HeadPatterns(
            layer=layer,
            head=head,
            patterns=head_patterns(model, seen, layer, head, lengths),
            patterns_full=head_patterns(model, seen_full, layer, head, lengths),
        )
        for layer, head in heads[:MOST_RECORDED]
    ]
    return activations, attention


@torch.no_grad()
def end_order(model: SparseTransformer, circuit: Circuit, batch: PairBatch) -> EndOrder:
    """Which answer's prompts the kept nodes are higher for at the last token, in the circuit alone."""
    with circuit.gating(model).over(model, batch), record(model) as seen:
        model.final_hidden(torch.from_numpy(batch.tokens).to(model.device))
    row, last = torch.arange(len(batch.last)), torch.from_numpy(batch.last)
    second = torch.from_numpy(batch.correct == 1)
    higher = {}
    for name in circuit.node_names[:MOST_RECORDED]:
        site, index = split_node(name)
        values = seen[site][..., index].float().cpu()[row, last]
        over = values[second] - values[~second]  # a pair's two prompts stand side by side
        higher[name] = ((over > 0).float().mean() + (over == 0).float().mean() / 2).item()
    return EndOrder(n_pairs=int(second.sum()), split="held-out", higher=higher)


def node_rows(seen: dict[str, torch.Tensor], name: str, lengths: list[int]) -> list[list[float]]:
    """Recorded activations of one node, [prompt][token]."""
    site, index = split_node(name)
    values = seen[site][..., index].float().cpu()
    return [[rounded(x) for x in values[row, :length].tolist()] for row, length in enumerate(lengths)]


def head_patterns(
    model: SparseTransformer, seen: dict[str, torch.Tensor], layer: int, head: int, lengths: list[int]
) -> list[list[list[float]]]:
    """Attention patterns of one head from recorded queries and keys, [prompt][query][key]: of the keys that a query
    can look at, those up to its own place. They are most of a page's bytes."""
    pattern = head_pattern(model, seen, layer, head).float().cpu()
    return [
        [[round(x, PATTERN_DIGITS) for x in pattern[row, query, : query + 1].tolist()] for query in range(n)]
        for row, n in enumerate(lengths)
    ]


def _embedding(
    model: SparseTransformer, circuit: Circuit, tokens: list[int], tokenizer: Tokenizer
) -> list[EmbeddingWeight]:
    """Embedding entries of the shown tokens on the channels that kept reads look at."""
    reads = {
        node.name: node.index
        for node in circuit.nodes
        if node.site in ("attn.act_in", "mlp.act_in", "final_resid") and node.index < model.config.d_model
    }
    weights = model.wte.weight.detach()[tokens].cpu()
    return [
        EmbeddingWeight(
            token=tokenizer.token(token),
            token_id=token,
            target=name,
            weight=weights[row, index].item(),
        )
        for name, index in reads.items()
        for row, token in enumerate(tokens)
        if weights[row, index] != 0
    ]


def _logits(model: SparseTransformer, circuit: Circuit, answers: tuple[int, int]) -> list[AnswerWeight]:
    channels = by_site(circuit.node_names).get("final_resid", [])
    weights = model.lm_head.weight.detach()[list(answers)].cpu()
    return [
        AnswerWeight(source=f"final_resid.{channel}", answer=side, weight=weights[side, channel].item())
        for channel in channels
        for side in (0, 1)
        if weights[side, channel] != 0
    ]
