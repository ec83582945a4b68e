// What the server sends (payload.py, live.py) and the page keeps.

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
export interface Edge { source: string; target: string; weight: number }
export interface Prompt {
  tokens: string[];
  text?: string;
  answer: number | null;
  full?: number[];
  circuit?: number[];
}
export interface HeadPatterns { layer: number; head: number; patterns: number[][][]; patterns_full?: number[][][] }
export interface Group { name: string; nodes: string[] }
export interface Groups { schema_version: number; groups: Group[]; names: Record<string, string> }
export interface Summary {
  loss?: number | null; loss_full?: number | null; loss_empty?: number | null; loss_ablated?: number | null;
  loss_full_calibrated?: number | null; loss_ablated_calibrated?: number | null;
  target_loss?: number | null; n_nodes?: number; n_edges?: number; ablation?: string; split?: string | null; n_prompts?: number | null;
}
export interface Payload {
  schema: number;
  id?: string;
  title: string;
  task?: string;
  description?: string;
  live?: boolean | null;
  problem?: string;
  model?: { name?: string; id?: string; n_layer?: number; nonzeros?: number };
  summary?: Summary;
  answers: { text: string; id: number | null }[];
  nodes: CircuitNode[];
  edges: Edge[];
  residual?: { source: string; target: string }[];
  embedding?: { token: string; token_id: number; target: string; weight: number }[];
  logits?: { source: string; answer: number; weight: number }[];
  prompts?: Prompt[];
  attention?: HeadPatterns[];
  groups?: Groups;
  card?: Record<string, unknown> | null;
  card_problem?: string;
  details?: Record<string, NodeDetails>;
  curve?: Curve;
}
export interface WeightList {
  title: string;
  side: "in" | "out";
  total: number;
  rows: { name: string; token?: string; weight: number }[];
}
export interface Example { tokens: string[]; values: number[]; at: number }
export interface NodeDetails {
  name: string;
  mean: number;
  weights: WeightList[];
  text: {
    n_tokens: number;
    active: number;
    histogram: { low: number; high: number; counts: number[] } | null;
    examples: { band: string; items: Example[] }[];
  } | null;
  text_problem?: string;
}
export interface Curve { order: string[]; points: { size: number; loss: number }[]; split: string; n_prompts: number }
export type Kind = "mean" | "zero" | "resample" | "scale" | "patch";
export interface Intervention { kind: Kind; target: string; source?: string; factor?: number }
export interface Reading { logits: number[]; top: { token: string; p: number }[] }
export interface RunResult {
  prompts: { tokens: string[]; answer: number | null; before: Reading; after: Reading }[];
  loss: { before: number; after: number; n_prompts: number; split: string };
  activations: Record<string, number[][]>;
  attention: HeadPatterns[];
  n_kept: number;
  scope: "model" | "circuit";
  ms: number;
}
export interface CircuitRecord {
  id: string; task: string; run: string; model?: string | null; model_id?: string | null;
  n_nodes?: number | null; n_edges?: number | null; loss?: number | null; problem: string | null;
}
