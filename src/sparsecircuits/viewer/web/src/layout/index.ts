// Places a circuit. Our own layered layout rather than a general one: the layers are given by the model's sites,
// a head's q, k and v stand in one box with the gate drawn between them, and links along the residual stream
// share lanes.
import { GAP, type Heights, addRows, arrangeHead, makeBands, placeY } from "./bands";
import {
  type Band,
  type Density,
  type Graph,
  type Layout,
  type Stood,
  type Vertex,
  boxesOf,
  makeLinks,
  makeVertices,
} from "./graph";
import { connect, endX, makeChains, orderAsBefore, orderBands } from "./order";
import { placeAsBefore, placeX, spreadPorts } from "./place";
import { MOST_DRAWN } from "./rest";

/** Scale below which words cannot be read: at 1 the smallest, the captions, have 12 pixels, and all others 14. */
const LEGIBLE = 11 / 12;
const LEGIBLE_BARE = 11 / 13.75;
const ROOMY: Density = {
  captions: true,
  node: 28,
  captioned: 42,
  answer: 40,
  headTop: 63,
  headLabel: 17,
  gate: 36,
  labelRoom: 0,
  gap: 21,
  apart: 16,
  least: LEGIBLE,
};
const TIGHT: Density = {
  ...ROOMY,
  answer: 36,
  headTop: 54,
  headLabel: 16,
  gate: 32,
  gap: 13,
  apart: 10,
};
/** Without captions: they are read by pointing at a node. */
const BARE: Density = {
  ...TIGHT,
  captions: false,
  node: 24,
  answer: 32,
  headTop: 42,
  headLabel: 21,
  gate: 16,
  labelRoom: 68,
  gap: 12,
  least: LEGIBLE_BARE,
};
const MOST_CAPTIONED = 32; // nodes; of a smaller circuit what each fires on says more than the whole at one glance
const NARROW = 640; // pixels of a window in which captions of more than a few nodes would not leave room for the rest
const FEW = 16;
const MARGINS = 48; // above and below the placed things
const EDGE = 38; // pixels that the margins may take of the window's edge
const LABEL = 14.5; // margin words, of a picture that is never shown smaller than `LEGIBLE`
const GUTTER = { alone: 11.4, beside: 6.2 }; // of margin words' size; side by side there is room for layers alone

export interface Window {
  width: number;
  height: number;
}

interface Standing {
  vertices: Map<string, Vertex>;
  drawnAs: Map<string, string>;
  bands: Band[];
}

const isLegible = (graph: Graph): boolean => boxesOf(graph) <= MOST_DRAWN;

const roomIn = (window: Window, gutter: number, { least }: Density): number =>
  Math.max(240, window.width / least - gutter - MARGINS);

function stand(graph: Graph, window: Window, gutter: number, beside: Heights, density: Density): Standing {
  const { vertices, drawnAs } = makeVertices(graph);
  const room = isLegible(graph) ? roomIn(window, gutter, density) : null;
  return { vertices, drawnAs, bands: makeBands(graph, vertices, room, beside, density) };
}

/** Height of all that stands in bands, without what is between them. */
function solidOf(bands: Band[], apart: number): number {
  const blocks = new Set(bands.map((band) => band.block)).size;
  return bands.reduce((sum, band) => sum + band.height, 0) + apart * (blocks - 1);
}

/** Where a layout's vertices and rows stand. */
export const stoodOf = ({ vertices, bands, density, gap }: Layout): Stood => ({
  density,
  gap,
  x: new Map([
    ...[...vertices.values()].map((vertex): [string, number] => [vertex.id, vertex.item.x + vertex.dx]),
    ...bands.flatMap((band) => band.items.filter((item) => item.lane)).map((l): [string, number] => [l.id, l.x]),
  ]),
  heights: heightsOf(bands),
});

const heightsOf = (bands: Band[]): Heights => new Map(bands.map(({ key, height, unit }) => [key, { height, unit }]));

/** Space between bands: the whole fills the window, or has about its shape where it is larger. */
function gapBetweenBands(bands: Band[], width: number, window: Window, legible: boolean, density: Density): number {
  const solid = solidOf(bands, density.apart);
  const share = (height: number): number => (height - solid) / Math.max(1, bands.length - 1);
  if (legible) return Math.min(70, Math.max(density.gap, share(window.height / 1.1)));
  return Math.min(
    70,
    Math.max(
      24,
      Math.min(80, width / 30),
      share(Math.max(window.height / 1.1, ((width + 150) * window.height) / window.width)),
    ),
  );
}

/** Whether the whole can be seen and read at once. */
const fits = ({ width, height, gutter, least }: Layout, window: Window): boolean =>
  spanOf(width, gutter) * least <= window.width && (height + MARGINS) * least <= window.height + EDGE;

const spanOf = (width: number, gutter: number): number => width + gutter + MARGINS;

/** Of two pictures side by side, the same for both: captions where there is room for them. */
function densityBeside(graph: Graph, other: Graph, window: Window): Density {
  const most = Math.max(boxesOf(graph), boxesOf(other));
  return window.width < NARROW && most > FEW && isLegible(graph) && isLegible(other) ? BARE : ROOMY;
}

/**
 * Places everything for a window of that many pixels. beside: another circuit whose layers are to be level. before: a
 * picture of the same circuit, of which all that is in both stays where it stood.
 *
 * Things stand no closer than they must for the whole to be seen and read at once. Where it never can, the picture is
 * turned up and down: with captions, unless a large circuit had to be turned sideways too.
 */
export function layoutGraph(
  graph: Graph,
  window: Window,
  beside: Graph | null = null,
  before: Stood | null = null,
): Layout {
  const at = (density: Density): Layout => layoutAt(density, graph, window, beside, before);
  if (before) return at(before.density);
  if (beside) return at(densityBeside(graph, beside, window));
  if (!isLegible(graph)) return at(ROOMY);
  const roomy = at(ROOMY);
  if (fits(roomy, window)) return roomy;
  const tight = at(TIGHT);
  if (fits(tight, window) || boxesOf(graph) <= MOST_CAPTIONED) return tight;
  const bare = at(BARE);
  const sideways = spanOf(tight.width, tight.gutter) * tight.least > window.width;
  return sideways || fits(bare, window) ? bare : tight;
}

function layoutAt(density: Density, graph: Graph, window: Window, beside: Graph | null, before: Stood | null): Layout {
  const wide = LABEL * (beside ? GUTTER.beside : GUTTER.alone);
  const level = beside
    ? heightsOf(stand(beside, window, wide, new Map(), density).bands)
    : (before?.heights ?? new Map());
  const { vertices, drawnAs, bands } = stand(graph, window, wide, level, density);
  const links = makeLinks(graph, vertices, drawnAs);
  if (beside) bands.at(-1)!.fixed = true; // answers, in one order on both sides
  makeChains(links, vertices, bands);
  const legible = isLegible(graph) && (beside === null || isLegible(beside)); // level pictures have the same gaps
  const most = legible ? roomIn(window, wide, density) : Infinity;
  if (legible && !beside && !before) addRows(bands, most);
  connect(links);
  const stood = before && orderAsBefore(bands, before);
  if (!stood) orderBands(bands, GAP);
  for (const item of bands.flatMap((band) => band.items)) {
    if (item.head === undefined) continue;
    arrangeHead(item, density, (v) => {
      const joints = item.down.filter((joint) => joint.own.vertex === v);
      return joints.length ? joints.reduce((sum, joint) => sum + endX(joint.other), 0) / joints.length : 0;
    });
  }
  let width = stood ? placeAsBefore(bands, stood) : placeX(bands, GAP, most);
  const gap = before?.gap ?? gapBetweenBands(bands, width, window, legible, density);
  const height = placeY(bands, gap, density.apart);
  const shown = Math.max(legible ? density.least : 0, Math.min(1.1, window.height / height));
  const label = legible ? LABEL : Math.min(26, Math.max(14, 13 / shown)); // read when the whole is small
  const gutter = legible ? wide : label * GUTTER.alone;
  const room = (0.86 * window.width) / shown - gutter;
  if (width < room && !before) width = placeX(bands, Math.min(72, (GAP * room) / width), room);
  spreadPorts(links);
  return {
    vertices,
    bands,
    links,
    width,
    height,
    gutter,
    label,
    density,
    gap,
    least: legible ? density.least : 0,
    rowWords: !(legible && beside),
  };
}
