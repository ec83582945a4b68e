// What is drawn: vertices and links. A *vertex* is a node, a token, an answer or a group of nodes. An *item* is
// what is placed in a band: one vertex, a head's box with its q, k and v, or a lane that a long link passes
// through. A *link* is a drawn line. All of it is plain data, so that a worker can make it.
import { isNumber, shorten, visible } from "../dom";
import type { Answer, AnswerWeight, CircuitNode, Edge, EmbeddingWeight, Group, ResidualLink } from "../types";

export type VertexKind = "node" | "token" | "answer" | "group";
export type LinkKind = "edge" | "residual" | "embedding" | "logit";
export interface TokenGroup {
  id: string;
  text: string;
  size: number;
  entries: EmbeddingWeight[];
}

export interface Vertex {
  id: string;
  kind: VertexKind;
  bandKey: string;
  label: string;
  letter: string;
  /** A second line, of what it fires on. */
  caption: string;
  node?: CircuitNode;
  answer?: { text: string };
  text?: string;
  entries?: EmbeddingWeight[];
  more?: TokenGroup[];
  group?: Group;
  importance: number;
  w: number;
  h: number;
  dx: number;
  dy: number;
  y: number;
  item: Item;
}
export interface Joint {
  own: End;
  other: End;
  weight: number;
}
export interface Item {
  id: string;
  band: Band;
  w: number;
  x: number;
  vertices: Vertex[];
  lane?: boolean;
  run?: string;
  head?: number;
  layer?: number;
  h?: number;
  /** The lower end of a head's box, once it is placed. */
  bottom?: number;
  glyph?: number;
  /** Whether queries or keys of a head are in the circuit, be they drawn or gathered in a box. */
  scored?: boolean;
  /** What a head looks at. */
  looks?: string;
  gate?: number[] | null;
  up: Joint[];
  down: Joint[];
}
export interface Band {
  key: string;
  block: string;
  title: string[];
  row: string;
  items: Item[];
  height: number;
  rows: number;
  /** Whether the order of what stands in it is given. */
  fixed: boolean;
  /** Height of what stands in it. */
  unit: number;
  index: number;
  top: number;
  bottom: number;
}
export interface End {
  item: Item;
  vertex: Vertex | null;
}
export interface Link {
  kind: LinkKind;
  source: string;
  target: string;
  weight: number | null;
  name: string;
  members: string[];
  chain: End[];
  out: number;
  in: number;
}
/** How close things stand: the words under nodes, the room in a head's box, the space between rows. */
export interface Density {
  captions: boolean;
  /** Heights of a node, of one with a caption, and of an answer. */
  node: number;
  captioned: number;
  answer: number;
  /** Room in a head's box above its channels, and how far down its label and its gate are there. */
  headTop: number;
  headLabel: number;
  gate: number;
  /** Room at the left of the gate, where the label stands beside it. */
  labelRoom: number;
  /** The least space between rows, and what is added between the parts of a layer. */
  gap: number;
  apart: number;
  /** The smallest scale at which its words can be read. */
  least: number;
}
export interface Layout {
  vertices: Map<string, Vertex>;
  bands: Band[];
  links: Link[];
  width: number;
  height: number;
  gutter: number;
  label: number;
  density: Density;
  /** Space between rows. */
  gap: number;
  /** The smallest scale at which its words can be read; 0 for a circuit that is too large for that. */
  least: number;
  /** Whether the margin has room for what each row holds. */
  rowWords: boolean;
}
/** Where a picture stood that another one takes the place of: x by vertex and by lane, and the rows' heights. */
export interface Stood {
  x: Map<string, number>;
  heights: Map<string, { height: number; unit: number }>;
  density: Density;
  gap: number;
}
/** The part of a payload that the layout needs, and the groups that are drawn as one vertex. */
export interface Graph {
  nodes: CircuitNode[];
  edges: Edge[];
  residual: ResidualLink[];
  embedding: EmbeddingWeight[];
  logits: AnswerWeight[];
  answers: Answer[];
  groups: Group[];
  /** Rows' nodes that are gathered because the circuit is large, and what their boxes say. */
  rest: { group: Group; label: string }[];
  names: Record<string, string>;
  /** Tokens to draw in order, in place of those with the largest weights. */
  prompt: string[] | null;
  /** What nodes fire on. */
  captions: Record<string, string>;
  /** What heads look at, by layer and head. */
  looks: Record<string, string>;
}

/** How many boxes stand for nodes. */
export function boxesOf({ nodes, groups, rest }: Graph): number {
  const folded = [...groups, ...rest.map(({ group }) => group)];
  return nodes.length - folded.reduce((sum, group) => sum + group.nodes.length - 1, 0);
}

const TOKENS_SHOWN = 18;

export function bandKeyOf(node: CircuitNode): string {
  if (!isNumber(node.layer)) return "final";
  return /^attn\.[qkv]$/.test(node.site) ? `${node.layer}.heads` : `${node.layer}.${node.site}`;
}

function vertex(part: Partial<Vertex> & Pick<Vertex, "id" | "kind" | "bandKey" | "label">): Vertex {
  return {
    letter: "",
    caption: "",
    importance: 0,
    w: 0,
    h: 0,
    dx: 0,
    dy: 0,
    y: 0,
    item: null as unknown as Item,
    ...part,
  };
}

/** Vertices by id, and which vertex each node is drawn as. A group stands where its first node would. */
export function makeVertices(graph: Graph): { vertices: Map<string, Vertex>; drawnAs: Map<string, string> } {
  const vertices = new Map<string, Vertex>();
  const drawnAs = new Map<string, string>();
  const folded = [...graph.groups.map((group) => ({ group, label: group.name })), ...graph.rest];
  const groupOf = new Map(folded.flatMap((each) => each.group.nodes.map((name) => [name, each] as const)));
  for (const node of graph.nodes) {
    const found = groupOf.get(node.name);
    if (found) {
      const { group, label } = found;
      const id = `group:${group.name}`;
      drawnAs.set(node.name, id);
      const known = vertices.get(id);
      if (known) known.importance += node.importance ?? 0;
      else {
        vertices.set(
          id,
          vertex({
            id,
            kind: "group",
            group,
            bandKey: bandKeyOf(node),
            label: shorten(label, 24),
            importance: node.importance ?? 0,
          }),
        );
      }
      continue;
    }
    drawnAs.set(node.name, node.name);
    const letter = /^attn\.[qkv]$/.test(node.site) ? node.site.slice(-1) : "";
    const label = graph.names[node.name] ? shorten(graph.names[node.name], 18) : String(node.index);
    vertices.set(
      node.name,
      vertex({
        id: node.name,
        kind: "node",
        node,
        bandKey: bandKeyOf(node),
        letter,
        label,
        caption: graph.captions[node.name] ?? "",
        importance: node.importance ?? 0,
      }),
    );
  }
  graph.answers.forEach((answer, i) => {
    const id = `answer:${i}`;
    vertices.set(
      id,
      vertex({ id, kind: "answer", answer, bandKey: "answers", label: shorten(visible(answer.text), 14) }),
    );
  });
  addTokens(graph, vertices, drawnAs);
  return { vertices, drawnAs };
}

const tokenAt = (place: number): string => `token:@${place}`;

/** The tokens of a prompt, one for each place. */
function addPrompt(graph: Graph, prompt: string[], vertices: Map<string, Vertex>): void {
  prompt.forEach((text, place) => {
    const id = tokenAt(place);
    const entries = graph.embedding.filter((entry) => entry.token === text);
    const label = shorten(visible(text), 12);
    vertices.set(id, vertex({ id, kind: "token", bandKey: "tokens", label, text, entries }));
  });
}

/** Where the embedding of a token stands: once, or at each place of the prompt. */
function placesOf(entry: EmbeddingWeight, prompt: string[] | null): string[] {
  if (!prompt) return [`token:${entry.token_id}`];
  return prompt.flatMap((text, place) => (text === entry.token ? [tokenAt(place)] : []));
}

/** Tokens with the largest weights first; what does not fit is gathered in one "more" vertex. */
function addTokens(graph: Graph, vertices: Map<string, Vertex>, drawnAs: Map<string, string>): void {
  if (graph.prompt) {
    addPrompt(graph, graph.prompt, vertices);
    return;
  }
  const tokens = new Map<string, TokenGroup>();
  for (const entry of graph.embedding) {
    if (!drawnAs.has(entry.target)) continue;
    const id = `token:${entry.token_id}`;
    const token = tokens.get(id) ?? { id, text: entry.token, size: 0, entries: [] };
    token.size = Math.max(token.size, Math.abs(entry.weight));
    token.entries.push(entry);
    tokens.set(id, token);
  }
  const ranked = [...tokens.values()].sort((a, b) => b.size - a.size);
  const room = ranked.length > TOKENS_SHOWN ? TOKENS_SHOWN - 1 : ranked.length;
  for (const token of ranked.slice(0, room)) {
    vertices.set(
      token.id,
      vertex({
        id: token.id,
        kind: "token",
        bandKey: "tokens",
        label: shorten(visible(token.text), 12),
        text: token.text,
        entries: token.entries,
      }),
    );
  }
  const rest = ranked.slice(room);
  if (rest.length)
    vertices.set(
      "token:more",
      vertex({
        id: "token:more",
        kind: "token",
        bandKey: "tokens",
        label: `+${rest.length} more`,
        more: rest,
        entries: [],
      }),
    );
}

/** Lines between what is drawn; lines that a group gathers become one, of the largest weight among them. */
export function makeLinks(graph: Graph, vertices: Map<string, Vertex>, drawnAs: Map<string, string>): Link[] {
  const links = new Map<string, Link>();
  const place = (id: string): string => drawnAs.get(id) ?? id;
  const add = (kind: LinkKind, from: string, to: string, weight: number | null): void => {
    const [source, target] = [place(from), place(to)];
    if (source === target || !vertices.has(source) || !vertices.has(target)) return;
    const merged = source !== from || target !== to;
    const key = `${kind} ${source} ${target}${merged ? "" : ` ${links.size}`}`;
    const known = links.get(key);
    if (!known) {
      links.set(key, {
        kind,
        source,
        target,
        weight,
        name: `${source} → ${target}`,
        members: [`${from} → ${to}`],
        chain: [],
        out: 0,
        in: 0,
      });
      return;
    }
    known.members.push(`${from} → ${to}`);
    if (Math.abs(weight ?? 0) > Math.abs(known.weight ?? 0)) known.weight = weight;
  };
  for (const link of graph.residual) add("residual", link.source, link.target, null);
  for (const entry of graph.embedding) {
    for (const place of placesOf(entry, graph.prompt)) add("embedding", place, entry.target, entry.weight);
  }
  for (const edge of graph.edges) add("edge", edge.source, edge.target, edge.weight);
  for (const entry of graph.logits) add("logit", entry.source, `answer:${entry.answer}`, entry.weight);
  return [...links.values()];
}
