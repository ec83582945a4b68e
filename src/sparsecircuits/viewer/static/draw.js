// Draws a placed graph as SVG.

const signClass = (weight) => (weight < 0 ? "neg" : "pos");

function linkPath(link) {
  const first = link.chain[0];
  let x = endX(first) + link.out;
  let y = first.item.band.top;
  let d = `M${x.toFixed(1)} ${(first.vertex.y - first.vertex.h / 2).toFixed(1)}L${x.toFixed(1)} ${y.toFixed(1)}`;
  for (const end of link.chain.slice(1)) {
    const toX = endX(end) + (end.vertex ? link.in : 0);
    const toY = end.item.band.bottom;
    const stop = end.vertex ? end.vertex.y + end.vertex.h / 2 : end.item.band.top;
    const bend = (y + toY) / 2;
    d += `C${[x, bend, toX, bend, toX, toY].map((n) => n.toFixed(1)).join(" ")}L${toX.toFixed(1)} ${stop.toFixed(1)}`;
    x = toX;
    y = stop;
  }
  return d;
}

function drawLinks(layout) {
  const group = svg("g", { class: "links" });
  const largest = {};
  for (const { kind, weight } of layout.links) largest[kind] = Math.max(largest[kind] ?? 0, Math.abs(weight ?? 0));
  const order = { residual: 0, embedding: 1, logit: 2, edge: 3 };
  const links = [...layout.links].sort((a, b) => order[a.kind] - order[b.kind] || Math.abs(b.weight) - Math.abs(a.weight));
  for (const link of links) {
    const d = linkPath(link);
    const width = link.kind === "residual" ? 1.5 : 1.4 + 4.6 * (Math.abs(link.weight) / (largest[link.kind] || 1)) ** 0.8;
    link.element = svg("g", {
      class: `link ${link.kind} ${link.kind === "residual" ? "" : signClass(link.weight)}`,
      "data-name": link.name, "data-kind": link.kind, "aria-hidden": "true",
    },
    svg("path", { class: "hit", d }),
    svg("path", { class: "line", d, "stroke-width": width.toFixed(2) }));
    link.element.link = link;
    group.append(link.element);
  }
  return group;
}

function drawBlocks(layout) {
  const group = svg("g", { class: "blocks", "aria-hidden": "true" });
  const blocks = new Map();
  for (const band of layout.bands) {
    const block = blocks.get(band.block) ?? blocks.set(band.block, { title: band.title, top: band.top, bottom: band.bottom }).get(band.block);
    block.top = Math.min(block.top, band.top);
    block.bottom = Math.max(block.bottom, band.bottom);
    if (!band.row) continue;
    group.append(svg("text", { class: "row-label", x: -16, y: (band.top + band.bottom) / 2 + layout.label * 0.34, "text-anchor": "end", "font-size": layout.label }, band.row));
  }
  for (const { title, top, bottom } of blocks.values()) {
    if (title.length > 1) {
      group.prepend(svg("rect", { class: "block", x: -layout.gutter, y: top - 11, width: layout.width + layout.gutter + 16, height: bottom - top + 22, rx: 12 }));
    }
    const middle = (top + bottom) / 2;
    const size = layout.label * 1.12;
    const y = middle + size * (title.length > 1 ? -0.15 : 0.36);
    const x = 14 - layout.gutter;
    group.append(svg("text", { class: "block-title", x, y, "font-size": size }, title[0]));
    if (title[1]) group.append(svg("text", { class: "block-sub", x, y: y + layout.label * 1.2, "font-size": layout.label }, title[1]));
  }
  return group;
}

const headItems = (layout) => layout.bands.flatMap((band) => band.items).filter((item) => item.glyph !== undefined);

function drawHeadFrames(layout) {
  const group = svg("g", { class: "head-frames" });
  for (const head of headItems(layout)) {
    const top = head.band.top;
    const left = head.x - head.w / 2;
    head.element = svg("g", {
      class: "head-box", "data-head": `${head.layer}.${head.head}`, tabindex: -1, role: "button",
      "aria-label": `Attention head ${head.head} of layer ${head.layer}, ${plural(head.vertices.length, "channel")}`,
    },
    svg("rect", { class: "frame", x: left, y: top, width: head.w, height: HEAD_H, rx: 12 }),
    svg("text", { class: "head-label", x: left + 12, y: top + 17 }, `head ${head.head}`));
    head.element.head = head;
    group.append(head.element);
  }
  return group;
}

/** The pattern that queries and keys make together, and the gate through which values pass. */
function drawGates(layout) {
  const group = svg("g", { class: "gates", "aria-hidden": "true" });
  for (const head of headItems(layout)) {
    const x = head.x + head.glyph;
    const y = head.band.top + 36;
    const scorers = head.vertices.filter((v) => v.letter !== "v");
    const part = svg("g", { class: scorers.length ? "gate" : "gate fixed", "data-head": `${head.layer}.${head.head}` });
    for (const vertex of scorers) {
      const [fromX, fromY] = [head.x + vertex.dx, vertex.y - vertex.h / 2];
      part.append(svg("path", { class: "meet", d: `M${fromX} ${fromY}C${fromX} ${y + 18} ${x} ${y + 26} ${x} ${y + 13}` }));
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
    for (let row = 0; row < 3; row++) for (let column = 0; column <= row; column++) {
      part.append(svg("rect", { class: "cell", x: x - 8.5 + column * 6, y: y - 8.5 + row * 6, width: 5, height: 5, opacity: scorers.length ? [0.35, 0.55, 1][(row * 2 + column) % 3] : 0.4 }));
    }
    head.gateElement = part;
    group.append(part);
  }
  return group;
}

function vertexLabel(vertex) {
  if (vertex.kind === "token") return vertex.more ? `${vertex.more.length} more tokens` : `Token ${visible(vertex.text)}`;
  if (vertex.kind === "answer") return `Answer ${visible(vertex.answer.text)}`;
  const { node } = vertex;
  const extra = isNumber(node.importance) ? `, loss ${node.importance < 0 ? "falls" : "rises"} by ${plain(Math.abs(node.importance))} without it` : "";
  return `${kindOf(node).title} ${node.index}, ${whereOf(node)}${isNumber(node.head) ? `, head ${node.head}` : ""}${extra}`;
}

function drawVertices(layout) {
  const group = svg("g", { class: "nodes" });
  const nodes = [...layout.vertices.values()];
  const most = Math.max(0, ...nodes.map((v) => v.node?.importance ?? 0));
  for (const vertex of nodes) {
    const { w, h } = vertex;
    const round = vertex.node?.site === "mlp.post_act" ? h / 2 : vertex.kind === "answer" ? 12 : 7;
    const name = vertex.kind === "node" ? vertex.id : null;
    vertex.element = svg("g", {
      class: `vertex ${vertex.kind}`, "data-id": vertex.id, "data-name": name, tabindex: -1, role: "button",
      "aria-label": vertexLabel(vertex), transform: `translate(${(vertex.item.x + vertex.dx).toFixed(1)} ${vertex.y.toFixed(1)})`,
    },
    svg("rect", { class: "shape", x: -w / 2, y: -h / 2, width: w, height: h, rx: round }));
    const label = svg("text", { class: "name", y: vertex.kind === "answer" ? 7 : vertex.kind === "token" ? 5 : 4, "text-anchor": "middle" });
    if (vertex.letter) label.append(svg("tspan", { class: "letter" }, vertex.letter), svg("tspan", { dx: 4 }, vertex.label));
    else label.append(vertex.label);
    vertex.element.append(label);
    const share = most > 0 ? (vertex.node?.importance ?? 0) / most : 0;
    if (share > 0.01) {
      const length = Math.max(3, share * (w - 24));
      vertex.element.append(svg("rect", { class: "importance", x: -length / 2, y: h / 2 - 6.5, width: length, height: 3, rx: 1.5 }));
    }
    vertex.element.vertex = vertex;
    group.append(vertex.element);
  }
  return group;
}

function drawGraph(payload, layout) {
  const world = svg("g", { id: "world" },
    drawBlocks(layout), drawHeadFrames(layout), drawLinks(layout), drawGates(layout), drawVertices(layout));
  const picture = svg("svg", {
    id: "picture", role: "group",
    "aria-label": `Circuit ${payload.title}: ${plural(payload.nodes.length, "node")}. Arrow keys move between nodes, Enter pins one, Escape lets go.`,
  }, world);
  return { picture, world };
}
