// What flows through the circuit on one prompt: activation × weight on each line, token by token.
import type { App } from "./app";
import type { Graph } from "./layout/graph";
import { activationsOf, shownPrompts, sidesOf } from "./sides";

export interface Flow {
  tokens: string[];
  /** Activations of a node, token by token; null where they are not known. */
  of(name: string): number[] | null;
}

/** The flow of the prompt that the state asks for; null while it is not known, or for weights. */
export function flowOf(app: App): Flow | null {
  const side = sidesOf(app)[0];
  const all = side && app.state.flow ? shownPrompts(app, side) : [];
  const place = Math.min(app.state.flow, all.length) - 1; // a typed prompt is alone
  const shown = all[place];
  if (!shown) return null;
  return { tokens: shown.tokens, of: (name) => activationsOf(app, name, side)?.[place] ?? null };
}

/** Activation × weight at each token. */
export function alongLine(flow: Flow, source: string, weight: number): number[] | null {
  return flow.of(source)?.map((activation) => activation * weight) ?? null;
}

const strongest = (values: number[]): number =>
  values.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);

/** The graph with the strongest flow on each line in place of its weight, and the prompt's tokens in order. */
export function withFlow(graph: Graph, flow: Flow): Graph {
  const along = (source: string, weight: number | null, pick: (values: number[]) => number): number | null => {
    const values = weight === null ? null : alongLine(flow, source, weight);
    return values?.length ? pick(values) : null;
  };
  return {
    ...graph,
    prompt: flow.tokens,
    edges: graph.edges.map((edge) => ({ ...edge, weight: along(edge.source, edge.weight, strongest) })),
    // The answer is read at the last token.
    logits: graph.logits.map((entry) => ({
      ...entry,
      weight: along(entry.source, entry.weight, (values) => values.at(-1)!) ?? 0,
    })),
  };
}
