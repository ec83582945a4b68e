// The whole state of the view, its history, and its place in the URL.
import { isNumber } from "./dom";
import type { Group, Intervention } from "./types";

export type Drawer = "card" | "history" | "help" | "about" | "find" | "steer" | null;
/** What the dense model of a bridge is steered from, where to and on what; and the slider's position. */
export interface Steer {
  nodes: "circuit" | "selected";
  toward: "left" | "right";
  over: "prompt" | "task";
  at: number;
}
export interface State {
  circuit: string;
  compare: string | null;
  /** What is selected (see `selection`). */
  selected: string | null;
  /** The one token at which changes are made, counted back from the last; null for all. */
  token: number | null;
  pair: number;
  prompt: string | null;
  patch: string | null;
  scope: "model" | "circuit";
  size: number | null;
  importance: number;
  hidden: string[];
  folded: string[];
  /** Whether each node of a large circuit has a box of its own. */
  whole: boolean;
  touch: Intervention[];
  drawer: Drawer;
  wide: boolean;
  /** What lines are: weights (0), or what flows on the upper (1) or the lower (2) prompt on show. */
  flow: number;
  steer: Steer;
  theme: "light" | "dark" | null;
  zoom: [number, number, number] | null;
  groups: Group[];
  names: Record<string, string>;
}
export type Kind = Intervention["kind"];
export interface Step {
  label: string;
  state: State;
}

export const START: State = {
  circuit: "",
  compare: null,
  selected: null,
  token: null,
  pair: 0,
  prompt: null,
  patch: null,
  scope: "circuit",
  size: null,
  importance: 0,
  hidden: [],
  folded: [],
  whole: false,
  touch: [],
  drawer: null,
  wide: false,
  flow: 0,
  steer: { nodes: "circuit", toward: "right", over: "prompt", at: 0 },
  theme: null,
  zoom: null,
  groups: [],
  names: {},
};
/** What belongs to one circuit: another one starts anew. */
const OF_CIRCUIT = [
  "selected",
  "token",
  "compare",
  "touch",
  "size",
  "hidden",
  "folded",
  "whole",
  "zoom",
  "importance",
  "pair",
  "prompt",
  "patch",
  "steer",
  "groups",
  "names",
] as const;
/** The change of state that opens a circuit. */
export function opening(circuit: string): Partial<State> {
  return { ...Object.fromEntries(OF_CIRCUIT.map((key) => [key, START[key]])), circuit };
}
/** What undo brings back; selection, zoom and drawers are left alone. */
const UNDONE = [
  "prompt",
  "patch",
  "scope",
  "size",
  "importance",
  "hidden",
  "folded",
  "touch",
  "groups",
  "names",
] as const;

type Listener = (state: State, before: State) => void;

export class Store {
  state: State;
  past: Step[] = [];
  future: Step[] = [];
  private listeners: Listener[] = [];

  constructor(start: Partial<State>) {
    this.state = { ...START, ...start };
  }

  listen(listener: Listener): void {
    this.listeners.push(listener);
  }

  /** Changes that undo does not know about. */
  set(patch: Partial<State>): void {
    const before = this.state;
    this.state = { ...before, ...patch };
    for (const listener of this.listeners) listener(this.state, before);
  }

  /** A change with a name, which can be undone. */
  do(label: string, patch: Partial<State>): void {
    this.past = [...this.past, { label, state: this.state }].slice(-200);
    this.future = [];
    this.set(patch);
  }

  undo(): boolean {
    return this.move(this.past, this.future);
  }

  redo(): boolean {
    return this.move(this.future, this.past);
  }

  /** Goes back to before the step of that number. */
  backTo(index: number): void {
    while (this.past.length > index && this.undo());
  }

  private move(from: Step[], to: Step[]): boolean {
    const step = from.pop();
    if (!step) return false;
    to.push({ label: step.label, state: this.state });
    this.set(Object.fromEntries(UNDONE.map((key) => [key, step.state[key]])) as Partial<State>);
    return true;
  }
}

const LIST = ["hidden", "folded"] as const;
const KINDS: Kind[] = ["mean", "zero", "resample", "scale", "patch"];

/** A change as the URL has it. */
export const spelled = (t: Intervention): unknown[] => [
  t.kind,
  t.target,
  t.source ?? 0,
  t.factor ?? 0,
  ...(isNumber(t.before_last) ? [t.before_last] : []),
];

/** The state as a URL fragment; what is at its default is left out. */
export function toHash(state: State): string {
  const found = new URLSearchParams();
  const put = (key: string, value: unknown): void => {
    if (value !== null && value !== "" && value !== 0 && value !== false) found.set(key, String(value));
  };
  put("circuit", state.circuit);
  put("compare", state.compare);
  put("at", state.selected);
  if (state.token !== null) found.set("token", String(state.token));
  put("pair", state.pair);
  put("prompt", state.prompt);
  put("from", state.patch);
  put("scope", state.scope === START.scope ? null : state.scope);
  if (state.size !== null) found.set("size", String(state.size));
  put("importance", state.importance);
  for (const key of LIST) if (state[key].length) found.set(key, JSON.stringify(state[key]));
  if (state.touch.length) found.set("touch", JSON.stringify(state.touch.map(spelled)));
  put("show", state.drawer);
  put("whole", state.whole ? 1 : 0);
  put("wide", state.wide ? 1 : 0);
  put("flow", state.flow);
  const { nodes, toward, over, at } = state.steer;
  const steer = [nodes, toward, over, at].join(",");
  put("steer", steer === Object.values(START.steer).join(",") ? null : steer);
  put("theme", state.theme);
  if (state.zoom) found.set("zoom", state.zoom.map((n, i) => n.toFixed(i === 2 ? 4 : 1)).join(","));
  return found.toString();
}

function parsed(text: string | null): unknown {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}

const texts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === "string").slice(0, 5000) : [];

function touches(value: unknown): Intervention[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, 300).flatMap((item): Intervention[] => {
    if (!Array.isArray(item) || !KINDS.includes(item[0]) || typeof item[1] !== "string") return [];
    const source = typeof item[2] === "string" ? { source: item[2] } : {};
    const at = Number.isInteger(item[4]) && item[4] >= 0 ? { before_last: item[4] as number } : {};
    return [{ kind: item[0], target: item[1], ...source, factor: Number.isFinite(item[3]) ? item[3] : 0, ...at }];
  });
}

function steerOf(text: string | null): Steer {
  const [nodes, toward, over, at] = (text ?? "").split(",");
  const place = Math.trunc(Number(at));
  return {
    nodes: nodes === "selected" ? nodes : "circuit",
    toward: toward === "left" ? toward : "right",
    over: over === "task" ? over : "prompt",
    at: place > 0 ? place : 0,
  };
}

/** The state that a URL fragment spells; anything malformed in it is left out. */
export function fromHash(hash: string): Partial<State> {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const whole = (key: string): number => Math.max(0, Math.trunc(Number(found.get(key)) || 0));
  const oneOf = <T extends string>(key: string, allowed: readonly T[]): T | null =>
    allowed.find((value) => value === found.get(key)) ?? null;
  const zoom = (found.get("zoom") ?? "").split(",").map(Number);
  return {
    circuit: found.get("circuit") ?? "",
    compare: found.get("compare"),
    selected: found.get("at"),
    token: found.has("token") ? whole("token") : null,
    pair: whole("pair"),
    prompt: found.get("prompt"),
    patch: found.get("from"),
    scope: oneOf("scope", ["model", "circuit"] as const) ?? START.scope,
    size: found.has("size") ? whole("size") : null,
    importance: Number(found.get("importance")) || 0,
    hidden: texts(parsed(found.get("hidden"))),
    folded: texts(parsed(found.get("folded"))),
    touch: touches(parsed(found.get("touch"))),
    drawer: oneOf("show", ["card", "history", "help", "about", "find", "steer"] as const),
    whole: found.get("whole") === "1",
    wide: found.get("wide") === "1",
    flow: Math.min(2, whole("flow")),
    steer: steerOf(found.get("steer")),
    theme: oneOf("theme", ["light", "dark"] as const),
    zoom: zoom.length === 3 && zoom.every(Number.isFinite) && zoom[2] > 0 ? (zoom as [number, number, number]) : null,
  };
}
