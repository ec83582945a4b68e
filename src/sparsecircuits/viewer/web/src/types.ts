// What the server and the page send each other. Written by `make docs` from viewer/schema.py and requests.py.

/** One of the two tokens that the model chooses between. */
export interface Answer {
  text: string;
  id: number | null;
}

/** What a channel of the final residual stream adds to an answer's score. */
export interface AnswerWeight {
  source: string;
  answer: number;
  weight: number;
}

/** The circuits of the task that do without one another (see `pruning.backups`), this one among them. */
export interface Backups {
  words: string;
  core: string[];
  ways: string[][];
}

/** Examples of activations of like size. */
export interface Band {
  band: string;
  items: Example[];
}

/** A loss in nats and what it is of. */
export interface CardBar {
  name: string;
  loss: number;
  note: string;
}

/** Some of the card under a title: paragraphs, then tables. */
export interface CardPart {
  title: string;
  paragraphs: string[];
  tables: CardTable[];
}

/** A faithfulness card (`faithfulness.card.schema.CardData`, which takes torch). */
export interface CardShown {
  verdict: string;
  tone: "good" | "bad" | "open";
  why: string;
  measured_on: string;
  bars: CardBar[];
  target_loss: number;
  warnings: string[];
  parts: CardPart[];
}

/** Rows of one length; the first is the head. */
export interface CardTable {
  rows: string[][];
}

/** All circuits that the server has. */
export interface CircuitList {
  circuits: CircuitRecord[];
}

/** A node of the circuit (see `circuits.schema.Node`). */
export interface CircuitNode {
  name: string;
  layer: number | null;
  site: string;
  index: number;
  head: number | null;
  mean: number | null;
  importance: number | null;
  activations?: number[][];
}

/** A circuit in the menu; one that cannot be read has a problem in place of sizes. */
export interface CircuitRecord {
  id: string;
  run: string;
  problem: string | null;
  model?: string;
  model_id?: string;
  task: string;
  n_nodes?: number;
  n_edges?: number;
  loss?: number | null;
}

/** How a prompt goes on, without the changes and with them: tokens, each the most likely one. */
export interface Continuation {
  before: string[];
  after: string[];
}

/** How the prompts of a `RunRequest` go on. */
export interface Continued {
  prompts: Continuation[];
}

/** Loss against size of circuits within the circuit; order: its nodes, the most important first. */
export interface Curve {
  order: string[];
  points: CurvePoint[];
  split: string;
  n_prompts: number;
}

/** Loss in nats of the most important nodes alone. */
export interface CurvePoint {
  size: number;
  loss: number;
}

/** An edge of the circuit (see `circuits.schema.Edge`). */
export interface Edge {
  source: string;
  target: string;
  weight: number | null;
  importance?: number | null;
}

/** What a shown token's embedding writes to a channel that a node reads. */
export interface EmbeddingWeight {
  token: string;
  token_id: number;
  target: string;
  weight: number;
}

/** How nodes of the circuit alone stand at the last token of pairs of prompts, where the answer is read. */
export interface EndOrder {
  n_pairs: number;
  split: string;
  higher: Record<string, number>;
}

/** Some tokens of text with a node's activations on them; `at`: the place of the one that it is an example of. */
export interface Example {
  tokens: string[];
  values: number[];
  at: number;
}

/** Nodes that belong together, under one name. */
export interface Group {
  name: string;
  nodes: string[];
}

/** The sidecar of a circuit. */
export interface Groups {
  schema_version: number;
  circuit: string | null;
  groups: Group[];
  names: Record<string, string>;
}

/** Attention patterns of a head, [prompt][query][key]. */
export interface HeadPatterns {
  layer: number;
  head: number;
  patterns: number[][][];
  patterns_full?: number[][][];
}

/** Counts in bins of equal width between two values. */
export interface Histogram {
  low: number;
  high: number;
  counts: number[];
}

/** One change of a forward pass. */
export interface Intervention {
  kind: "mean" | "zero" | "resample" | "scale" | "patch";
  target: string;
  source?: string | null;
  factor?: number;
  before_last?: number | null;
}

/** The model of a circuit; its sizes, when it is loaded. */
export interface ModelFacts {
  name?: string;
  id?: string;
  n_layer?: number;
  d_model?: number;
  n_head?: number;
  d_head?: number;
  parameters?: number;
  nonzeros?: number;
}

/** Every weight of a node, and what it does on pretraining text; None, with the reason, where none can be had. */
export interface NodeDetails {
  name: string;
  mean: number;
  weights: WeightList[];
  text: OnText | null;
  text_problem?: string;
}

/** What a node fires on over the task's prompts (see `circuits.descriptions`). */
export interface NodeWords {
  name: string;
  words: string;
  above: boolean;
  tokens: string[];
  place: "difference" | "onwards" | "last" | null;
  answer: string | null;
  precision: number | null;
  recall: number | null;
}

/** What a node does on pretraining text. */
export interface OnText {
  n_tokens: number;
  active: number;
  histogram: Histogram | null;
  examples: Band[];
}

/** What the page draws. Only the first parts are always there: a picture without its model has no prompts. */
export interface Payload {
  schema: 1;
  title: string;
  task?: string;
  description?: string;
  model?: ModelFacts;
  summary?: Summary;
  answers: Answer[];
  nodes: CircuitNode[];
  edges: Edge[];
  residual?: ResidualLink[];
  live?: boolean | null;
  problem?: string;
  embedding?: EmbeddingWeight[];
  logits?: AnswerWeight[];
  prompts?: Prompt[];
  attention?: HeadPatterns[];
  id?: string;
  groups?: Groups;
  groups_problem?: string;
  words?: NodeWords[];
  ends?: EndOrder;
  card?: CardShown | null;
  card_problem?: string;
  backups?: Backups;
  details?: Record<string, NodeDetails>;
  curve?: Curve;
  steering?: Steerable;
}

/** A shown prompt, and the logits of the two answers after it. */
export interface Prompt {
  tokens: string[];
  text?: string;
  answer: number | null;
  full?: number[];
  circuit?: number[];
}

/** What a run says after a prompt: logits of the two answers, and the most likely tokens. */
export interface Reading {
  logits: number[];
  top: TopToken[];
}

/** Why a request was not answered. */
export interface Refusal {
  error: string;
}

/** A write and a later read of one channel of the residual stream. */
export interface ResidualLink {
  source: string;
  target: string;
}

/** Loss over the task in nats, in the whole model or the whole circuit, and with the changes and at the size. */
export interface RunLoss {
  before: number;
  after: number;
  n_prompts: number;
  split: string;
}

/** A prompt that was run: in the whole model or the whole circuit, and with the changes and at the size. */
export interface RunPrompt {
  tokens: string[];
  answer: number | null;
  before: Reading;
  after: Reading;
  full?: number[];
  circuit?: number[];
}

/** What to run: a shown pair, or a prompt of one's own. */
export interface RunRequest {
  pair?: number;
  prompt?: string | null;
  patch_prompt?: string | null;
  scope?: "model" | "circuit";
  size?: number | null;
  interventions?: Intervention[];
  watch?: string[];
  heads?: [number, number][];
  seed?: number;
}

/** What a `RunRequest` gives at once; the loss is asked for by itself. */
export interface RunResult {
  prompts: RunPrompt[];
  activations: Record<string, number[][]>;
  attention: HeadPatterns[];
  n_kept: number;
  scope: "model" | "circuit";
  ms: number;
}

/** The name of a file that was written. */
export interface Saved {
  saved: string;
}

/** What to steer a dense model from, where to, and on which prompts. */
export interface SteerRequest {
  nodes?: string[];
  toward?: "left" | "right";
  over?: "prompt" | "task";
  pair?: number;
  prompt?: string | null;
  patch_prompt?: string | null;
}

/** The bridge that was given with the circuits: a dense model that can be steered from nodes of this one. */
export interface Steerable {
  bridge: string;
  dense: string;
  nodes?: string[];
  problem?: string;
}

/** The same probability from random nodes and in random directions, a curve a draw (`bridges.steering.Controls`). */
export interface SteeringControls {
  random_nodes: number[][];
  random_directions: number[][];
}

/** Mean probability of an answer against strength: `bridges.steering.Steered`, and on which prompts. */
export interface SteeringCurves {
  dense_id: string;
  sparse_id: string;
  task: string;
  toward: "left" | "right";
  answer: string;
  nodes: string[];
  split: string;
  prompts: number;
  strengths: number[];
  steered: number[];
  steered_between: number[];
  sparse: number[];
  dense_means: number[];
  counterfactual: number;
  paper: [number, number][];
  over: "prompt" | "task";
  prompt?: string[];
  counterpart?: string[];
}

/** The numbers above the picture: losses in nats (see `circuits.schema.Losses`), sizes, and what they are of. */
export interface Summary {
  loss?: number | null;
  loss_full?: number | null;
  loss_empty?: number | null;
  loss_ablated?: number | null;
  loss_full_calibrated?: number | null;
  loss_ablated_calibrated?: number | null;
  target_loss?: number | null;
  n_nodes?: number;
  n_edges?: number;
  ablation?: "mean" | "zero" | "resample";
  split?: string | null;
  n_prompts?: number | null;
  n_importance?: number;
}

/** A likely next token and its probability. */
export interface TopToken {
  token: string;
  p: number;
}

/** The nonzero weights of a node in one matrix, the largest first. */
export interface WeightList {
  title: string;
  side: "in" | "out";
  total: number;
  rows: WeightRow[];
}

/** A weight, and the node at its other end; for the embedding and the unembedding `token:ID`, and its text. */
export interface WeightRow {
  name: string;
  token?: string;
  weight: number;
}

/** What the nodes of a circuit fire on. */
export interface Words {
  nodes: NodeWords[];
}
