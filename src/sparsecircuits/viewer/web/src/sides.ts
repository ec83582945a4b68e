// The circuit on show and, in a comparison, the one beside it: each with its own prompts, activations and patterns.
import type { App } from "./app";
import type { CircuitNode, HeadPatterns, NodeWords, Payload, Prompt, RunPrompt } from "./types";

export type Which = "left" | "right";
/** One circuit of those on show; only the left one is run. */
export interface Side {
  which: Which;
  payload: Payload;
  runs: boolean;
  compared: boolean;
}

/** A prompt on show: as it was recorded, and as it ran last. */
export interface Shown {
  tokens: string[];
  answer: number | null;
  recorded: Prompt | null;
  run: RunPrompt | null;
}

export function sidesOf(app: App): Side[] {
  const { payload, other } = app;
  if (!payload) return [];
  const compared = app.state.compare !== null && other !== null;
  const left: Side = { which: "left", payload, runs: true, compared };
  return compared ? [left, { which: "right", payload: other!, runs: false, compared }] : [left];
}

export const sameModel = (app: App): boolean => app.other !== null && app.other.model?.id === app.payload?.model?.id;

const nodeIn = (payload: Payload, name: string): CircuitNode | null =>
  payload.nodes.find((node) => node.name === name) ?? null;

/** Whether what is selected by that id can be a part of a side: of another model only that where it was picked. */
const mayShow = (app: App, side: Side): boolean => !side.compared || sameModel(app) || side.which === app.picked;

/** The sides whose circuit has a node. */
export function sidesWith(app: App, name: string): Side[] {
  return sidesOf(app).filter((side) => mayShow(app, side) && nodeIn(side.payload, name) !== null);
}

/** The side that a node is looked at on: where it is in the circuit, the left one first. */
export function sideFor(app: App, name: string): Side | null {
  const all = sidesOf(app);
  return sidesWith(app, name)[0] ?? all.find((side) => mayShow(app, side)) ?? all[0] ?? null;
}

export function nodeOf(app: App, name: string): CircuitNode | null {
  const side = sideFor(app, name);
  return side && nodeIn(side.payload, name);
}

export function wordsOf(app: App, name: string): NodeWords | null {
  return sideFor(app, name)?.payload.words?.find((words) => words.name === name) ?? null;
}

/** The two of the pair on show, by that pair's number. */
function pairOf<T>(app: App, side: Side, all: T[]): T[] {
  const pairs = Math.max(1, Math.ceil((side.payload.prompts ?? []).length / 2));
  const pair = app.state.pair % pairs;
  return all.slice(2 * pair, 2 * pair + 2);
}

export function shownPrompts(app: App, side: Side): Shown[] {
  const result = side.runs ? app.runs.answers.result : null;
  if (side.runs && app.state.prompt !== null)
    return (result?.prompts ?? []).map((run) => ({ tokens: run.tokens, answer: null, recorded: null, run }));
  return pairOf(app, side, side.payload.prompts ?? []).map((each, i) => ({
    tokens: each.tokens,
    answer: each.answer,
    recorded: each,
    run: result?.prompts[i] ?? null,
  }));
}

/** Activations of a node on a side's prompts: of the last run where there is one, else as recorded. */
export function activationsOf(app: App, name: string, side: Side): number[][] | null {
  if (!mayShow(app, side) || (side.compared && !nodeIn(side.payload, name))) return null;
  const run = side.runs ? app.runs.answers.result?.activations[name] : undefined;
  if (run) return run;
  if (side.runs && app.runs.needed && app.state.prompt !== null) return null;
  const recorded = nodeIn(side.payload, name)?.activations;
  return recorded?.length ? pairOf(app, side, recorded) : null;
}

/** All that was recorded of a node on a side: what its colours are scaled by. */
export const recordedOf = (side: Side, name: string): number[][] => nodeIn(side.payload, name)?.activations ?? [];

export function patternsOf(
  app: App,
  id: string,
  side: Side,
): { shown: number[][][]; full: number[][][] | null } | null {
  if (!mayShow(app, side)) return null;
  const [layer, head] = id.slice(5).split(".").map(Number);
  const of = (all: HeadPatterns[] | undefined): HeadPatterns | undefined =>
    all?.find((each) => each.layer === layer && each.head === head);
  const run = side.runs && app.runs.needed ? of(app.runs.answers.result?.attention) : undefined;
  if (run) return { shown: run.patterns, full: null };
  const recorded = of(side.payload.attention);
  if (!recorded || (side.runs && app.state.prompt !== null)) return null;
  return {
    shown: pairOf(app, side, recorded.patterns),
    full: recorded.patterns_full ? pairOf(app, side, recorded.patterns_full) : null,
  };
}

export const titleOfSide = ({ payload, which }: Side): string =>
  `${which === "left" ? "Left" : "Right"}: ${payload.title}`;
