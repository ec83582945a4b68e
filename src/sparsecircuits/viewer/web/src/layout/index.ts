// Places a circuit. Our own layered layout rather than a general one: the layers are given by the model's sites,
// a head's q, k and v stand in one box with the gate drawn between them, and links along the residual stream
// share lanes.
import { GAP, type Heights, arrangeHead, makeBands, placeY } from "./bands";
import { type Band, type Graph, type Layout, type Stood, type Vertex, makeLinks, makeVertices } from "./graph";
import { connect, endX, makeChains, orderAsBefore, orderBands } from "./order";
import { placeAsBefore, placeX, spreadPorts } from "./place";

/** Scale below which words cannot be read: the smallest, the captions, are 12 pixels at 1. */
const LEGIBLE = 11 / 12;
const MOST_LEGIBLE = 150; // nodes; a larger circuit is a map first, and is read by zooming in
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

const isLegible = (graph: Graph): boolean => graph.nodes.length <= MOST_LEGIBLE;

function stand(graph: Graph, window: Window, gutter: number, beside: Heights): Standing {
  const { vertices, drawnAs } = makeVertices(graph);
  const room = isLegible(graph) ? Math.max(240, window.width / LEGIBLE - gutter - 48) : null;
  return { vertices, drawnAs, bands: makeBands(graph, vertices, room, beside) };
}

/** Where a layout's vertices and rows stand. */
export const stoodOf = ({ vertices, bands }: Layout): Stood => ({
  x: new Map([
    ...[...vertices.values()].map((vertex): [string, number] => [vertex.id, vertex.item.x + vertex.dx]),
    ...bands.flatMap((band) => band.items.filter((item) => item.lane)).map((l): [string, number] => [l.id, l.x]),
  ]),
  heights: heightsOf(bands),
});

const heightsOf = (bands: Band[]): Heights => new Map(bands.map(({ key, height, unit }) => [key, { height, unit }]));

/** Space between bands: the whole fills the window, or has about its shape where it is larger. */
function gapBetweenBands(bands: Band[], width: number, window: Window, legible: boolean): number {
  const blocks = new Set(bands.map((band) => band.block)).size;
  const solid = bands.reduce((sum, band) => sum + band.height, 0) + 16 * (blocks - 1);
  const share = (height: number): number => (height - solid) / Math.max(1, bands.length - 1);
  if (legible) return Math.min(70, Math.max(21, share(window.height / 1.1)));
  return Math.min(
    70,
    Math.max(
      24,
      Math.min(80, width / 30),
      share(Math.max(window.height / 1.1, ((width + 150) * window.height) / window.width)),
    ),
  );
}

/**
 * Places everything for a window of that many pixels. beside: another circuit whose layers are to be level. before: a
 * picture of the same circuit, of which all that is in both stays where it stood.
 */
export function layoutGraph(
  graph: Graph,
  window: Window,
  beside: Graph | null = null,
  before: Stood | null = null,
): Layout {
  const wide = LABEL * (beside ? GUTTER.beside : GUTTER.alone);
  const level = beside ? heightsOf(stand(beside, window, wide, new Map()).bands) : (before?.heights ?? new Map());
  const { vertices, drawnAs, bands } = stand(graph, window, wide, level);
  const links = makeLinks(graph, vertices, drawnAs);
  if (beside) bands.at(-1)!.fixed = true; // answers, in one order on both sides
  makeChains(links, vertices, bands);
  connect(links);
  const stood = before && orderAsBefore(bands, before);
  if (!stood) orderBands(bands, GAP);
  for (const item of bands.flatMap((band) => band.items)) {
    if (item.head === undefined) continue;
    arrangeHead(item, (v) => {
      const joints = item.down.filter((joint) => joint.own.vertex === v);
      return joints.length ? joints.reduce((sum, joint) => sum + endX(joint.other), 0) / joints.length : 0;
    });
  }
  let width = stood ? placeAsBefore(bands, stood) : placeX(bands, GAP);
  const legible = isLegible(graph) && (beside === null || isLegible(beside)); // level pictures have the same gaps
  const height = placeY(bands, gapBetweenBands(bands, width, window, legible));
  const shown = Math.max(legible ? LEGIBLE : 0, Math.min(1.1, window.height / height));
  const label = legible ? LABEL : Math.min(26, Math.max(14, 13 / shown)); // read when the whole is small
  const gutter = legible ? wide : label * GUTTER.alone;
  const room = (0.86 * window.width) / shown - gutter;
  if (width < room && !before) width = placeX(bands, Math.min(72, (GAP * room) / width));
  spreadPorts(links);
  return {
    vertices,
    bands,
    links,
    width,
    height,
    gutter,
    label,
    least: legible ? LEGIBLE : 0,
    rowWords: !(legible && beside),
  };
}
