// Elements and how numbers, tokens and sites are written.
import type { CircuitNode } from "./types";

const SVG = "http://www.w3.org/2000/svg";
type Child = Node | string | null | undefined | false | Child[];
type Attributes = Record<string, unknown>;

type Handler = (event: Event) => void;
const handlers = new WeakMap<Element, Map<string, Handler>>();

/** Calls a function on events of an element; an earlier one for the same kind of event is not called any more. */
export function handle(element: Element, kind: string, handler: Handler): void {
  const known = handlers.get(element) ?? new Map<string, Handler>();
  handlers.set(element, known);
  if (!known.has(kind)) element.addEventListener(kind, (event) => handlers.get(element)?.get(kind)?.(event));
  known.set(kind, handler);
}

const nothing: Handler = () => {};

/** `to` does from now on what `from` does on events. */
export function moveHandlers(from: Element, to: Element): void {
  const next = handlers.get(from);
  for (const kind of handlers.get(to)?.keys() ?? []) if (!next?.has(kind)) handle(to, kind, nothing);
  for (const [kind, handler] of next ?? []) handle(to, kind, handler);
}

function fill<T extends Element>(element: T, attributes: Attributes, children: Child[]): T {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || (value === false && !name.startsWith("aria-"))) continue;
    if (name.startsWith("on")) handle(element, name.slice(2), value as Handler);
    else element.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : String(value));
  }
  for (const child of children.flat(9) as (Node | string | null | undefined | false)[]) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child); // strings become text nodes: nothing here ever parses HTML
  }
  return element;
}

export function html<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag), attributes, children) as SVGElementTagNameMap[K];
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

export const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

function digits(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return size.toExponential(1);
  return size >= 1000 ? size.toFixed(0) : size.toFixed(size >= 100 ? 1 : 3);
}

/** A number with its sign; a dash where there is none. */
export function signed(value: unknown): string {
  return isNumber(value) ? (value < 0 ? "−" : "+") + digits(value) : "–";
}

export function plain(value: unknown): string {
  return isNumber(value) ? (value < 0 ? "−" : "") + digits(value) : "–";
}

/** What ran, in the words that the page has for it everywhere. */
export const SCOPES = { model: "whole model", circuit: "circuit alone" } as const;

/** "48 held-out prompts". */
export function promptsOf(n: number | null | undefined, split: string | null | undefined): string {
  return isNumber(n) ? `${count(n)} ${split ?? ""} prompts`.replace("  ", " ") : "";
}

export function percent(value: number): string {
  return `${(100 * value).toFixed(1)}%`;
}

export function count(value: unknown): string {
  return isNumber(value) ? Math.round(value).toLocaleString("en-US") : "–";
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Text of a token with spaces, tabs, newlines and control characters made visible. */
export function visible(text: unknown): string {
  return String(text)
    .replaceAll(" ", "·")
    .replaceAll("\n", "↵")
    .replaceAll("\t", "⇥")
    .replace(
      /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
}

export function shorten(text: string, length: number): string {
  const letters = [...text];
  return letters.length <= length ? text : `${letters.slice(0, length - 1).join("")}…`;
}

const KINDS: Record<string, [string, string]> = {
  "attn.act_in": ["Attention read", "A channel of the residual stream, as the attention of this layer reads it."],
  "attn.q": ["Query channel", "Part of what a head looks for. Where query and key agree, the head pays attention."],
  "attn.k": [
    "Key channel",
    "Part of what each token offers to be found by. Where query and key agree, the head pays attention.",
  ],
  "attn.v": ["Value channel", "What a head copies from the tokens it pays attention to."],
  "attn.resid_delta": [
    "Attention write",
    "What the attention of this layer adds to one channel of the residual stream.",
  ],
  "mlp.act_in": ["MLP read", "A channel of the residual stream, as the MLP of this layer reads it."],
  "mlp.post_act": ["MLP neuron", "A hidden unit: it responds when the channels it reads line up with its weights."],
  "mlp.resid_delta": ["MLP write", "What the MLP of this layer adds to one channel of the residual stream."],
  final_resid: ["Final read", "A channel of the residual stream, as the last step reads it to score the answers."],
};

export function kindOf(node: { site: string }): { title: string; words: string } {
  const [title, words] = Object.hasOwn(KINDS, node.site) ? KINDS[node.site] : [node.site, ""];
  return { title, words };
}

export function whereOf(node: { layer: number | null }): string {
  return isNumber(node.layer) ? `layer ${node.layer}` : "after the last layer";
}

/** `0.attn.q.12` as the parts of a node; for nodes that are not in the circuit. */
export function parseNode(name: string, dHead = 0): CircuitNode | null {
  const found = /^(?:(0|[1-9]\d{0,8})\.)?((?:attn|mlp)\.[a-z_]+|final_resid)\.(0|[1-9]\d{0,8})$/.exec(name);
  if (!found || !Object.hasOwn(KINDS, found[2])) return null;
  const index = Number(found[3]);
  const head = /^attn\.[qkv]$/.test(found[2]) && dHead ? Math.floor(index / dHead) : null;
  return {
    name,
    layer: found[1] === undefined ? null : Number(found[1]),
    site: found[2],
    index,
    head,
    mean: null,
    importance: null,
  };
}

export const signClass = (weight: number | null): string => ((weight ?? 0) < 0 ? "neg" : "pos");
