"""What the server sends and what a picture holds: a model of each JSON, from which `docs/make_types.py` writes the
page's types. Free of torch, so that a picture can stand before the model is loaded."""

from typing import Literal

from pydantic import Field

from sparsecircuits.circuits.intervention import Scope
from sparsecircuits.circuits.rules import Place
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.viewer.card import CardShown
from sparsecircuits.viewer.groups import Groups
from sparsecircuits.viewer.sent import Absent, FileText, Sent

# ------------------------------------------------------------------ the circuit and its model


class CircuitNode(Sent):
    """A node of the circuit (see `circuits.schema.Node`)."""

    name: str
    layer: int | None
    site: str
    index: int
    head: int | None
    mean: float | None
    importance: float | None
    activations: list[list[float]] | Absent = None
    """[prompt][token], in the circuit alone; empty where the circuit is too large."""


class Edge(Sent):
    """An edge of the circuit (see `circuits.schema.Edge`)."""

    source: str
    target: str
    weight: float | None
    importance: float | None = None


class ResidualLink(Sent):
    """A write and a later read of one channel of the residual stream."""

    source: str
    target: str


class EmbeddingWeight(Sent):
    """What a shown token's embedding writes to a channel that a node reads."""

    token: str
    token_id: int
    target: str
    weight: float


class AnswerWeight(Sent):
    """What a channel of the final residual stream adds to an answer's score."""

    source: str
    answer: int
    weight: float


class Answer(Sent):
    """One of the two tokens that the model chooses between."""

    text: str
    id: int | None


class ModelFacts(Sent):
    """The model of a circuit; its sizes, when it is loaded."""

    name: str | Absent = None
    id: str | Absent = None
    n_layer: int | Absent = None
    d_model: int | Absent = None
    n_head: int | Absent = None
    d_head: int | Absent = None
    parameters: int | Absent = None
    nonzeros: int | Absent = None


class Summary(Sent):
    """The numbers above the picture: losses in nats (see `circuits.schema.Losses`), sizes, and what they are of."""

    loss: float | None = None
    loss_full: float | None = None
    loss_empty: float | None = None
    loss_ablated: float | None = None
    loss_full_calibrated: float | None = None
    loss_ablated_calibrated: float | None = None
    target_loss: float | None = None
    n_nodes: int | Absent = None
    n_edges: int | Absent = None
    ablation: Ablation | Absent = None
    split: str | None = None
    n_prompts: int | None = None
    n_importance: int | Absent = None
    """Prompts that the importances were measured on."""


# ------------------------------------------------------------------ prompts


class Prompt(Sent):
    """A shown prompt, and the logits of the two answers after it."""

    tokens: list[str]
    text: str | Absent = None
    answer: int | None
    """Which of the two is right."""
    full: list[float] | Absent = None
    circuit: list[float] | Absent = None


class HeadPatterns(Sent):
    """Attention patterns of a head, [prompt][query][key]."""

    layer: int
    head: int
    patterns: list[list[list[float]]]
    """Of the circuit alone, kept channels only; or of what ran."""
    patterns_full: list[list[list[float]]] | Absent = None
    """Of the whole model."""


class TopToken(Sent):
    """A likely next token and its probability."""

    token: str
    p: float


class Reading(Sent):
    """What a run says after a prompt: logits of the two answers, and the most likely tokens."""

    logits: list[float]
    top: list[TopToken]


class RunPrompt(Sent):
    """A prompt that was run: in the whole model or the whole circuit, and with the changes and at the size."""

    tokens: list[str]
    answer: int | None
    before: Reading
    after: Reading
    full: list[float] | Absent = None
    """Logits of the two answers, nothing changed, in the whole model; of a prompt of one's own, as below."""
    circuit: list[float] | Absent = None
    """The same in the circuit alone, calibrated."""


class RunLoss(Sent):
    """Loss over the task in nats, in the whole model or the whole circuit, and with the changes and at the size."""

    before: float
    after: float
    n_prompts: int
    split: str


class Continuation(Sent):
    """How a prompt goes on, without the changes and with them: tokens, each the most likely one."""

    before: list[str]
    after: list[str]


class Continued(Sent):
    """How the prompts of a `RunRequest` go on."""

    prompts: list[Continuation]


class RunResult(Sent):
    """What a `RunRequest` gives at once; the loss is asked for by itself."""

    prompts: list[RunPrompt]
    activations: dict[str, list[list[float]]]
    """By node, [prompt][token]."""
    attention: list[HeadPatterns]
    n_kept: int
    scope: Scope
    ms: float
    """How long it took."""


# ------------------------------------------------------------------ one node; sizes


class WeightRow(Sent):
    """A weight, and the node at its other end; for the embedding and the unembedding `token:ID`, and its text."""

    name: str
    token: str | Absent = None
    weight: float


class WeightList(Sent):
    """The nonzero weights of a node in one matrix, the largest first."""

    title: str
    side: Literal["in", "out"]
    total: int
    """How many there are; the rows may be fewer."""
    rows: list[WeightRow]


class Histogram(Sent):
    """Counts in bins of equal width between two values."""

    low: float
    high: float
    counts: list[int]


class Example(Sent):
    """Some tokens of text with a node's activations on them; `at`: the place of the one that it is an example of."""

    tokens: list[str]
    values: list[float]
    at: int


class Band(Sent):
    """Examples of activations of like size."""

    band: str
    items: list[Example]


class OnText(Sent):
    """What a node does on pretraining text."""

    n_tokens: int
    active: float
    """Share of tokens on which it is not 0."""
    histogram: Histogram | None
    """Of the values that are not 0."""
    examples: list[Band]


class NodeDetails(Sent):
    """Every weight of a node, and what it does on pretraining text; None, with the reason, where none can be had."""

    name: str
    mean: float
    weights: list[WeightList]
    text: OnText | None
    text_problem: FileText | Absent = None


class NodeWords(Sent):
    """What a node fires on over the task's prompts (see `circuits.descriptions`)."""

    name: str
    words: str
    """The whole rule, with precision and recall."""
    above: bool
    tokens: list[str]
    place: Place | None
    answer: str | None
    precision: float | None
    recall: float | None


class EndOrder(Sent):
    """How nodes of the circuit alone stand at the last token of pairs of prompts, where the answer is read."""

    n_pairs: int
    split: str
    higher: dict[str, float]
    """By node, the share of pairs in which it is higher where the second answer is right; of equal ones, half."""


class Words(Sent):
    """What the nodes of a circuit fire on."""

    nodes: list[NodeWords]


class CurvePoint(Sent):
    """Loss in nats of the most important nodes alone."""

    size: int
    loss: float


class Curve(Sent):
    """Loss against size of circuits within the circuit; order: its nodes, the most important first."""

    order: list[str]
    points: list[CurvePoint]
    split: str
    n_prompts: int


# ------------------------------------------------------------------ steering


class Steerable(Sent):
    """The bridge that was given with the circuits: a dense model that can be steered from nodes of this one."""

    bridge: FileText
    dense: FileText
    nodes: list[str] | Absent = None
    """Those of the circuit that it can be steered from, once the model is loaded."""
    problem: FileText | Absent = None
    """Why nothing can be steered here."""


class SteeringCurves(Sent):
    """Mean probability of an answer against strength: `bridges.steering.Steered`, and on which prompts."""

    dense_id: str
    sparse_id: str
    task: str
    toward: Literal["left", "right"]
    answer: str
    nodes: list[str]
    split: str
    prompts: int
    strengths: list[float]
    steered: list[float]
    steered_between: list[float]
    sparse: list[float]
    dense_means: list[float]
    counterfactual: float
    paper: list[tuple[float, float]]
    over: Literal["prompt", "task"]
    prompt: list[str] | Absent = None
    """Tokens of the prompt that is steered, if it is a single one."""
    counterpart: list[str] | Absent = None
    """Tokens of the prompt that it is steered to."""


class SteeringControls(Sent):
    """The same probability from random nodes and in random directions, a curve a draw (`bridges.steering.Controls`)."""

    random_nodes: list[list[float]]
    random_directions: list[list[float]]


# ------------------------------------------------------------------ whole answers


class Backups(Sent):
    """The circuits of the task that do without one another (see `pruning.backups`), this one among them."""

    words: str
    core: list[str]
    """Nodes that nothing was found to replace: each of the circuits may have them."""
    ways: list[list[str]]
    """The nodes of each circuit."""


class Payload(Sent):
    """What the page draws. Only the first parts are always there: a picture without its model has no prompts."""

    schema_: Literal[1] = Field(alias="schema")
    title: str
    task: str | Absent = None
    description: str | Absent = None
    model: ModelFacts | Absent = None
    summary: Summary | Absent = None
    answers: list[Answer]
    nodes: list[CircuitNode]
    edges: list[Edge]
    residual: list[ResidualLink] | Absent = None
    live: bool | None = None
    """Whether the model is at hand; null while it is loaded."""
    problem: FileText | Absent = None
    """Why it is not."""
    embedding: list[EmbeddingWeight] | Absent = None
    logits: list[AnswerWeight] | Absent = None
    prompts: list[Prompt] | Absent = None
    attention: list[HeadPatterns] | Absent = None
    id: str | Absent = None
    """Run, task and content (see `identity`)."""
    groups: Groups | Absent = None
    groups_problem: FileText | Absent = None
    """Why saved names and groups are not shown."""
    words: list[NodeWords] | Absent = None
    """Of the card, or measured when asked for; those of a large circuit are not all there."""
    ends: EndOrder | Absent = None
    card: CardShown | None = None
    """The faithfulness card; null where there is none."""
    card_problem: FileText | Absent = None
    backups: Backups | Absent = None
    """Where they were searched for."""
    details: dict[str, NodeDetails] | Absent = None
    curve: Curve | Absent = None
    steering: Steerable | Absent = None
    """Where a bridge was given."""


class CircuitRecord(Sent):
    """A circuit in the menu; one that cannot be read has a problem in place of sizes."""

    id: str
    run: FileText
    problem: FileText | None
    model: str | Absent = None
    model_id: str | Absent = None
    task: FileText
    n_nodes: int | Absent = None
    n_edges: int | Absent = None
    loss: float | None = None


class CircuitList(Sent):
    """All circuits that the server has."""

    circuits: list[CircuitRecord]


class Saved(Sent):
    """The name of a file that was written."""

    saved: FileText


class Refusal(Sent):
    """Why a request was not answered."""

    error: FileText
