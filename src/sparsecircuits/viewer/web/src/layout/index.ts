// Places a circuit. Our own layered layout rather than a general one: the layers are given by the model's sites,
// a head's q, k and v stand in one box with the gate drawn between them, and links along the residual stream
// share lanes.
import { arrangeHead, makeBands, placeY } from "./bands";
import { type Graph, type Layout, makeLinks, makeVertices } from "./graph";
import { connect, endX, makeChains, orderBands } from "./order";
import { placeX, spreadPorts } from "./place";

/** Places everything for a window of that many pixels: as large as it can be shown whole. */
export function layoutGraph(graph: Graph, window: { width: number; height: number }): Layout {
  const { vertices, drawnAs } = makeVertices(graph);
  const bands = makeBands(graph, vertices);
  const links = makeLinks(graph, vertices, drawnAs);
  makeChains(links, vertices, bands);
  connect(links);
  orderBands(bands, 22);
  for (const item of bands.flatMap((band) => band.items)) {
    if (item.head === undefined) continue;
    arrangeHead(item, (v) => {
      const joints = item.down.filter((joint) => joint.own.vertex === v);
      return joints.length ? joints.reduce((sum, joint) => sum + endX(joint.other), 0) / joints.length : 0;
    });
  }
  let width = placeX(bands, 22);
  const blocks = new Set(bands.map((band) => band.block)).size;
  const solid = bands.reduce((sum, band) => sum + band.height, 0) + 16 * (blocks - 1);
  const wanted = Math.max(window.height / 1.1, ((width + 150) * window.height) / window.width);
  const gapY = Math.min(70, Math.max(24, Math.min(80, width / 30), (wanted - solid) / Math.max(1, bands.length - 1)));
  const height = placeY(bands, gapY);
  const shown = Math.min(1.1, window.height / height);
  const label = Math.min(26, Math.max(14, 13 / shown)); // margin words stay readable when the whole is small
  const gutter = label * 10.2;
  const room = (0.86 * window.width) / shown - gutter;
  if (width < room) width = placeX(bands, Math.min(72, (22 * room) / width));
  spreadPorts(links);
  return { vertices, bands, links, width, height, gutter, label };
}
