// Draws a placed graph as SVG.
import { isNumber, kindOf, plain, plural, shorten, signClass, svg, visible, whereOf } from "./dom";
import type { Item, Layout, Link, Vertex } from "./layout/graph";
import { endX } from "./layout/order";

const MOST_WITH_HITS = 1500; // links with a broad invisible line under the pointer

export interface Drawing {
  picture: SVGSVGElement;
  world: SVGGElement;
  vertices: Map<string, SVGGElement>;
  links: Map<Link, SVGGElement>;
  heads: Map<string, { frame: SVGGElement; gate: SVGGElement; item: Item }>;
}

function linkPath(link: Link): string {
  const first = link.chain[0];
  const vertex = first.vertex!;
  let x = endX(first) + link.out;
  let y = vertex.y - vertex.h / 2;
  let d = `M${x.toFixed(1)} ${y.toFixed(1)}`;
  if (first.item.band.rows === 1) {
    y = first.item.band.top;
    d += `L${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  for (const end of link.chain.slice(1)) {
    const toX = endX(end) + (end.vertex ? link.in : 0);
    const stop = end.vertex ? end.vertex.y + end.vertex.h / 2 : end.item.band.top;
    const toY = end.vertex && end.item.band.rows > 1 ? stop : end.item.band.bottom;
    const bend = (y + toY) / 2;
    d += `C${[x, bend, toX, bend, toX, toY].map((n) => n.toFixed(1)).join(" ")}`;
    if (stop !== toY) d += `L${toX.toFixed(1)} ${stop.toFixed(1)}`;
    x = toX;
    y = stop;
  }
  return d;
}

function drawLinks(layout: Layout, drawn: Map<Link, SVGGElement>): SVGGElement {
  const group = svg("g", { class: "links" });
  const largest: Record<string, number> = {};
  for (const { kind, weight } of layout.links) largest[kind] = Math.max(largest[kind] ?? 0, Math.abs(weight ?? 0));
  const importance = new Map([...layout.vertices.values()].map((v) => [v.id, v.importance]));
  const most = Math.max(1e-9, ...importance.values());
  const order = { residual: 0, embedding: 1, logit: 2, edge: 3 };
  const size = (link: Link): number => {
    const weight = Math.abs(link.weight ?? 0) / (largest[link.kind] || 1);
    // Weight times importance of the ends: a large weight between nodes that hardly matter stays thin.
    const matter =
      link.kind === "edge" ? Math.min(importance.get(link.source) ?? 0, importance.get(link.target) ?? 0) / most : 0;
    return 1.4 + 3.4 * weight ** 0.8 + 1.6 * weight * Math.sqrt(Math.max(0, matter));
  };
  const links = [...layout.links].sort(
    (a, b) => order[a.kind] - order[b.kind] || Math.abs(b.weight ?? 0) - Math.abs(a.weight ?? 0),
  );
  const many = links.length > MOST_WITH_HITS;
  for (const link of links) {
    const d = linkPath(link);
    const width = link.kind === "residual" ? 1.5 : size(link) * (many ? 0.7 : 1);
    const element = svg(
      "g",
      {
        class: `link ${link.kind} ${link.kind === "residual" ? "" : signClass(link.weight)}`,
        "data-name": link.name,
        "data-kind": link.kind,
        "aria-hidden": "true",
      },
      many ? null : svg("path", { class: "hit", d }),
      svg("path", { class: "line", d, "stroke-width": width.toFixed(2) }),
    );
    drawn.set(link, element);
    group.append(element);
  }
  return group;
}

function drawBlocks(layout: Layout): SVGGElement {
  const group = svg("g", { class: "blocks", "aria-hidden": "true" });
  const blocks = new Map<string, { title: string[]; top: number; bottom: number }>();
  for (const band of layout.bands) {
    const block = blocks.get(band.block) ?? { title: band.title, top: band.top, bottom: band.bottom };
    blocks.set(band.block, block);
    block.top = Math.min(block.top, band.top);
    block.bottom = Math.max(block.bottom, band.bottom);
    if (!band.row || !layout.rowWords) continue;
    group.append(
      svg(
        "text",
        {
          class: "row-label",
          x: -16,
          y: (band.top + band.bottom) / 2 + layout.label * 0.34,
          "text-anchor": "end",
          "font-size": layout.label,
        },
        band.row,
      ),
    );
  }
  for (const { title, top, bottom } of blocks.values()) {
    if (title.length > 1) {
      group.prepend(
        svg("rect", {
          class: "block",
          x: -layout.gutter,
          y: top - 11,
          width: layout.width + layout.gutter + 16,
          height: bottom - top + 22,
          rx: 12,
        }),
      );
    }
    const size = layout.label * 1.12;
    const y = (top + bottom) / 2 + size * (title.length > 1 ? -0.15 : 0.36);
    const x = 14 - layout.gutter;
    group.append(svg("text", { class: "block-title", x, y, "font-size": size }, title[0]));
    if (title[1])
      group.append(
        svg("text", { class: "block-sub", x, y: y + layout.label * 1.2, "font-size": layout.label }, title[1]),
      );
  }
  return group;
}

export const headItems = (layout: Layout): Item[] =>
  layout.bands.flatMap((band) => band.items).filter((item) => item.head !== undefined);

function drawHeadFrames(layout: Layout, heads: Drawing["heads"]): SVGGElement {
  const group = svg("g", { class: "head-frames" });
  for (const item of headItems(layout)) {
    const id = `${item.layer}.${item.head}`;
    const left = item.x - item.w / 2;
    const top = item.bottom! - item.h!;
    const frame = svg(
      "g",
      {
        class: "head-box",
        "data-head": id,
        tabindex: -1,
        role: "button",
        "aria-label": `Attention head ${item.head} of layer ${item.layer}, ${plural(item.vertices.length, "channel")}`,
      },
      svg("rect", { class: "frame", x: left, y: top, width: item.w, height: item.h, rx: 12 }),
      svg("text", { class: "head-label", x: left + 12, y: top + layout.density.headLabel }, `head ${item.head}`),
      looksText(item, top + layout.density.headLabel),
    );
    group.append(frame);
    heads.set(id, { frame, gate: drawGate(item, top + layout.density.gate), item });
  }
  return group;
}

/** What a head looks at, as far as its box has room beside its number. */
function looksText(head: Item, y: number): SVGTextElement | null {
  if (!head.looks) return null;
  const x = 12 + 8.4 * `head ${head.head}`.length + 9;
  const room = Math.floor((head.w - x - 10) / 7.4);
  const words = `looks at ${head.looks}`;
  const shown = words.length <= room ? words : `→ ${head.looks}`;
  if (room < 5) return null;
  return svg("text", { class: "looks", x: head.x - head.w / 2 + x, y }, shorten(shown, room));
}

/** The pattern that queries and keys make together, and the gate through which values pass. */
function drawGate(head: Item, y: number): SVGGElement {
  const x = head.x + head.glyph!;
  const scorers = head.vertices.filter((v) => v.letter !== "v");
  const part = svg("g", { class: head.scored ? "gate" : "gate fixed", "data-head": `${head.layer}.${head.head}` });
  for (const vertex of scorers.length <= 6 ? scorers : []) {
    const [fromX, fromY] = [head.x + vertex.dx, vertex.y - vertex.h / 2];
    part.append(
      svg("path", { class: "meet", d: `M${fromX} ${fromY}C${fromX} ${y + 18} ${x} ${y + 26} ${x} ${y + 13}` }),
    );
  }
  if (head.gate) {
    const [from, to] = head.gate.map((edge) => head.x + edge);
    part.append(
      svg("path", { class: "meet", d: `M${x + 13} ${y}L${from - 7} ${y}` }),
      svg("path", { class: "arrow", d: `M${from - 1} ${y}l-9 -5v10z` }),
      svg("rect", { class: "bar", x: from, y: y - 10, width: to - from, height: 20, rx: 10 }),
      svg("text", { class: "times", x: (from + to) / 2, y: y + 5.5, "text-anchor": "middle" }, "×"),
    );
  }
  part.append(svg("rect", { class: "pattern", x: x - 13, y: y - 13, width: 26, height: 26, rx: 5 }));
  for (let row = 0; row < 3; row++)
    for (let column = 0; column <= row; column++) {
      part.append(
        svg("rect", {
          class: "cell",
          x: x - 8.5 + column * 6,
          y: y - 8.5 + row * 6,
          width: 5,
          height: 5,
          opacity: head.scored ? [0.35, 0.55, 1][(row * 2 + column) % 3] : 0.4,
        }),
      );
    }
  return part;
}

export function vertexWords(vertex: Vertex): string {
  if (vertex.kind === "token")
    return vertex.more ? `${vertex.more.length} more tokens` : `Token ${visible(vertex.text)}`;
  if (vertex.kind === "answer") return `Answer ${visible(vertex.answer!.text)}`;
  if (vertex.kind === "group") return `Group ${vertex.group!.name}, ${plural(vertex.group!.nodes.length, "node")}`;
  const node = vertex.node!;
  const extra = isNumber(node.importance)
    ? `, loss of the circuit alone ${node.importance < 0 ? "falls" : "rises"} by ` +
      `${plain(Math.abs(node.importance))} without it`
    : "";
  const head = isNumber(node.head) ? `, head ${node.head}` : "";
  return `${kindOf(node).title} ${node.index}, ${whereOf(node)}${head}${extra}`;
}

/** What a node fires on, with its tokens set apart from the words. */
function captionText(caption: string): SVGTextElement {
  const [words, tokens] = caption.split(/(?<=^(?:fires on|low on|.*higher for|.* for) )/);
  return svg("text", { class: "caption", y: 9, "text-anchor": "middle" }, words, tokens && svg("tspan", {}, tokens));
}

function drawVertex(vertex: Vertex, share: number): SVGGElement {
  const { w, h } = vertex;
  const round = vertex.node?.site === "mlp.post_act" ? h / 2 : vertex.kind === "answer" ? 12 : 7;
  const element = svg("g", {
    class: `vertex ${vertex.kind}`,
    "data-id": vertex.id,
    "data-name": vertex.kind === "node" ? vertex.id : null,
    tabindex: -1,
    role: "button",
    "aria-label": vertexWords(vertex),
    transform: `translate(${(vertex.item.x + vertex.dx).toFixed(1)} ${vertex.y.toFixed(1)})`,
  });
  if (vertex.kind === "group")
    element.append(svg("rect", { class: "behind", x: -w / 2 + 4, y: -h / 2 - 4, width: w, height: h, rx: round }));
  element.append(svg("rect", { class: "shape", x: -w / 2, y: -h / 2, width: w, height: h, rx: round }));
  const captioned = vertex.caption !== "";
  const label = svg("text", {
    class: "name",
    y: captioned ? -6 : vertex.kind === "answer" ? 7 : vertex.kind === "token" ? 5 : 4,
    "text-anchor": "middle",
  });
  if (vertex.letter)
    label.append(svg("tspan", { class: "letter" }, vertex.letter), svg("tspan", { dx: 4 }, vertex.label));
  else label.append(vertex.label);
  element.append(label);
  if (captioned) element.append(captionText(vertex.caption));
  if (share > 0.01) {
    const length = Math.max(3, share * (w - 24));
    element.append(
      svg("rect", { class: "importance", x: -length / 2, y: h / 2 - 6.5, width: length, height: 3, rx: 1.5 }),
    );
  }
  return element;
}

export function drawGraph(title: string, layout: Layout, nodes: number): Drawing {
  const links = new Map<Link, SVGGElement>();
  const heads: Drawing["heads"] = new Map();
  const vertices = new Map<string, SVGGElement>();
  const frames = drawHeadFrames(layout, heads);
  const most = Math.max(0, ...[...layout.vertices.values()].map((v) => v.importance));
  for (const vertex of layout.vertices.values())
    vertices.set(vertex.id, drawVertex(vertex, most > 0 ? vertex.importance / most : 0));
  const gates = svg(
    "g",
    { class: "gates", "aria-hidden": "true" },
    [...heads.values()].map(({ gate }) => gate),
  );
  const world = svg(
    "g",
    { class: "world" },
    drawBlocks(layout),
    frames,
    drawLinks(layout, links),
    gates,
    svg("g", { class: "nodes" }, [...vertices.values()]),
  );
  const picture = svg(
    "svg",
    {
      class: "picture",
      role: "group",
      "aria-label":
        `Circuit ${title}: ${plural(nodes, "node")}. ` +
        "Arrow keys move between nodes, Enter pins one, Escape lets go.",
    },
    world,
  );
  return { picture, world, vertices, links, heads };
}
