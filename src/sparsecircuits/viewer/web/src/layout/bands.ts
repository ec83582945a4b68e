// Rows of the picture, from tokens (bottom) to answers (top), and what stands in each.
import { isNumber } from "../dom";
import type { Band, Density, Graph, Item, Vertex } from "./graph";
import { extentIn } from "./order";

export const GAP = 22;
const ROW_GAP = 8;
const HEAD_PAD = 9;
export const ROWS: Record<string, string> = {
  "attn.act_in": "reads",
  heads: "heads",
  "attn.resid_delta": "writes",
  "mlp.act_in": "reads",
  "mlp.post_act": "neurons",
  "mlp.resid_delta": "writes",
};

/** Heights of bands, and of what stands in them, by key. */
export type Heights = Map<string, { height: number; unit: number }>;
type Spot = Pick<Band, "key" | "block" | "title" | "row">;

function bandOrder(graph: Graph, beside: Heights): Spot[] {
  const others = [...beside.keys()].map((key) => Number.parseInt(key, 10));
  const layers = [...new Set([...graph.nodes.map((node) => node.layer), ...others].filter(isNumber))].sort(
    (a, b) => a - b,
  );
  const spots: Spot[] = [{ key: "tokens", block: "tokens", title: ["Tokens"], row: "" }];
  for (const layer of layers) {
    for (const [site, row] of Object.entries(ROWS)) {
      const part = site.startsWith("mlp") ? "mlp" : "attn";
      spots.push({
        key: `${layer}.${site}`,
        block: `${layer}.${part}`,
        title: [`Layer ${layer}`, part === "mlp" ? "MLP" : "attention"],
        row,
      });
    }
  }
  spots.push({ key: "final", block: "final", title: ["Final read"], row: "" });
  spots.push({ key: "answers", block: "answers", title: ["Answers"], row: "" });
  return spots;
}

function widthOf(vertex: Vertex, nodeWidth: number): number {
  const letters = [...vertex.label].length;
  if (vertex.kind === "answer") return Math.max(84, letters * 12 + 30);
  if (vertex.kind === "token") return Math.max(46, letters * 9.2 + 20);
  if (vertex.kind === "group") return Math.max(90, letters * 8.6 + 44);
  return Math.max(nodeWidth, (letters + (vertex.letter ? 1.6 : 0)) * 8.6 + 20, [...vertex.caption].length * 6.7 + 14);
}

/**
 * Bands with what stands in them. room: how wide they may be, in several rows if they must; null for what suits the
 * shape of a screen. beside: bands of a picture that stands beside this one, so that layers are level.
 */
export function makeBands(
  graph: Graph,
  vertices: Map<string, Vertex>,
  room: number | null,
  beside: Heights,
  density: Density,
): Band[] {
  const nodeWidth = graph.nodes.length > 60 ? 52 : 60;
  const bands: Band[] = bandOrder(graph, beside).map((spot) => ({
    ...spot,
    items: [],
    height: density.node,
    unit: density.node,
    fixed: (spot.key === "tokens" || spot.key === "answers") && graph.prompt !== null,
    rows: 1,
    index: 0,
    top: 0,
    bottom: 0,
  }));
  const byKey = new Map(bands.map((band) => [band.key, band]));
  const heads = new Map<string, Item>();
  for (const vertex of vertices.values()) {
    const band = byKey.get(vertex.bandKey);
    if (!band) {
      vertices.delete(vertex.id);
      continue;
    }
    if (!density.captions) vertex.caption = "";
    vertex.w = widthOf(vertex, nodeWidth);
    vertex.h = vertex.kind === "answer" ? density.answer : vertex.caption ? density.captioned : density.node;
    if (!band.key.endsWith(".heads") || vertex.kind === "group") {
      vertex.item = { id: vertex.id, band, w: vertex.w, x: 0, vertices: [vertex], up: [], down: [] };
      band.items.push(vertex.item);
      continue;
    }
    const { layer, head } = vertex.node!;
    const id = `head:${layer}.${head}`;
    let item = heads.get(id);
    if (!item) {
      item = { id, band, head: head ?? 0, layer: layer ?? 0, vertices: [], x: 0, w: 0, up: [], down: [] };
      item.scored = graph.nodes.some((n) => n.layer === layer && n.head === head && /[qk]$/.test(n.site));
      item.looks = density.captions ? graph.looks[`${item.layer}.${item.head}`] : undefined;
      heads.set(id, item);
      band.items.push(item);
    }
    vertex.item = item;
    item.vertices.push(vertex);
  }
  const kept = bands.filter((band) => band.items.length || beside.has(band.key));
  for (const band of kept) {
    const own = band.items.flatMap((item) => item.vertices);
    band.unit = Math.max(beside.get(band.key)?.unit ?? 0, ...own.map((vertex) => vertex.h));
    for (const vertex of own) vertex.h = band.unit; // one height in a row
    band.height = band.unit;
  }
  for (const head of heads.values()) arrangeHead(head, density, () => 0);
  kept.forEach((band, i) => {
    band.index = i;
  });
  for (const band of kept) {
    if (band.key.endsWith(".heads"))
      band.height = Math.max(...band.items.map((item) => item.h ?? density.node), density.node);
  }
  if (room === null) wrapLongBands(kept);
  else wrapWideBands(kept, room);
  for (const band of kept) band.height = Math.max(band.height, beside.get(band.key)?.height ?? 0);
  return kept;
}

const stacks = (band: Band): boolean => band.key !== "answers";
const holdsHeads = (band: Band): boolean => band.key.endsWith(".heads");

/** From one row of a band to the next. */
function pitchOf(band: Band): number {
  if (!holdsHeads(band)) return band.unit + ROW_GAP;
  return Math.max(band.unit, ...band.items.map((item) => item.h ?? band.unit)) + 2 * ROW_GAP;
}

function setRows(band: Band, rows: number): void {
  band.rows = rows;
  const pitch = pitchOf(band);
  band.height = rows * pitch - (holdsHeads(band) ? 2 : 1) * ROW_GAP;
}

/** Rows that are wider than the room become several, so that their words can be read. */
function wrapWideBands(bands: Band[], room: number): void {
  for (const band of bands.filter(stacks)) {
    const most = Math.max(1, band.items.length);
    let rows = 1;
    while (rows < most && extentIn(band.items, rows, GAP) > room) rows++;
    setRows(band, rows);
  }
}

/** One row more for what is too wide with the lanes that pass through it; many more would hardly make it narrower. */
export function addRows(bands: Band[], room: number): void {
  for (const band of bands.filter(stacks)) {
    const standing = band.items.filter((item) => !item.lane).length;
    if (band.rows < standing && extentIn(band.items, band.rows, GAP) > room) setRows(band, band.rows + 1);
  }
}

/** Long rows become several, so that the whole keeps about the shape of a screen. */
function wrapLongBands(bands: Band[]): void {
  const longest = (most: number): number => {
    for (const band of bands.filter((each) => stacks(each) && !holdsHeads(each)))
      setRows(band, band.items.length > 14 ? Math.max(2, Math.ceil(band.items.length / most)) : 1);
    return bands.reduce((sum, band) => sum + band.height + 40, 0);
  };
  for (let most = 14; most < 400; most += 4) {
    if (longest(most) * 1.7 <= most * 62) break;
  }
}

/** q and k on the left, v on the right, in rows of a few; `wish` orders the channels inside each group. */
export function arrangeHead(head: Item, density: Density, wish: (vertex: Vertex) => number): void {
  const group = (letters: string): Vertex[] =>
    head.vertices
      .filter((v) => letters.includes(v.letter))
      .sort((a, b) => letters.indexOf(a.letter) - letters.indexOf(b.letter) || wish(a) - wish(b));
  const { unit } = head.band;
  let x = 12;
  let deepest = 1;
  const put = (list: Vertex[]): number[] => {
    const from = x;
    const columns = list.length > 6 ? Math.ceil(Math.sqrt(2 * list.length)) : list.length;
    const step = Math.max(...list.map((v) => v.w)) + 8;
    list.forEach((vertex, i) => {
      const row = Math.floor(i / columns);
      deepest = Math.max(deepest, row + 1);
      if (list.length > 6) vertex.dx = from + (i % columns) * step + step / 2 - 4;
      else {
        vertex.dx = x + vertex.w / 2;
        x += vertex.w + 8;
      }
      vertex.dy = row * (unit + ROW_GAP);
    });
    if (list.length > 6) x = from + columns * step;
    return [from, Math.max(from, x - 8)];
  };
  const [left, right] = [group("qk"), group("v")];
  head.glyph = left.length ? 0 : x + 20;
  const { labelRoom } = density;
  head.glyph += labelRoom;
  if (left.length) {
    const [from, to] = put(left);
    head.glyph = Math.max((from + to) / 2, labelRoom && from + labelRoom + 13);
    if (to - from < 56 + labelRoom) {
      x = from + 64 + labelRoom;
      head.glyph = Math.max(head.glyph, from + 20);
    }
  } else x += 64 + labelRoom;
  x += 8;
  head.gate = right.length ? put(right) : null;
  head.w = x + (right.length ? 4 : -4);
  head.h = density.headTop + deepest * (unit + ROW_GAP) - ROW_GAP + HEAD_PAD;
  for (const vertex of head.vertices) vertex.dx -= head.w / 2;
  head.glyph -= head.w / 2;
  if (head.gate) head.gate = head.gate.map((edge) => edge - head.w / 2);
}

export function placeY(bands: Band[], gap: number, apart: number): number {
  let y = 0;
  [...bands].reverse().forEach((band, i, list) => {
    if (i) y += gap + (list[i - 1].block === band.block ? 0 : apart);
    band.top = y;
    y += band.height;
    band.bottom = y;
  });
  for (const band of bands) {
    band.items
      .filter((item) => !item.lane)
      .forEach((item, i) => {
        item.bottom = band.bottom - (i % band.rows) * pitchOf(band);
        for (const vertex of item.vertices) {
          vertex.y = item.bottom - vertex.h / 2 - (item.head !== undefined ? HEAD_PAD + vertex.dy : 0);
        }
      });
  }
  return y;
}
