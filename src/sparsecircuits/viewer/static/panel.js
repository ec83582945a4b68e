// The details of what is selected: a node, a token, an answer or a head.

function neighbours(app, id) {
  const links = app.layout.links.filter((link) => link.source === id || link.target === id);
  return { incoming: links.filter((l) => l.target === id), outgoing: links.filter((l) => l.source === id) };
}

function endName(app, id) {
  const vertex = app.layout.vertices.get(id);
  if (vertex?.kind === "token") return vertex.more ? vertex.label : `token ${visible(vertex.text)}`;
  if (vertex?.kind === "answer") return `answer ${visible(vertex.answer.text)}`;
  return id;
}

function linkRow(app, link, other) {
  return html("li", {},
    html("button", { type: "button", class: "edge-row", "data-to": other, onclick: () => app.pin(app.targetOf(other), true) },
      html("span", { class: "edge-end" }, endName(app, other)),
      link.kind === "residual" ? html("span", { class: "edge-note" }, "carried along")
        : html("span", { class: `edge-weight ${signClass(link.weight)}` }, signed(link.weight))));
}

function linkList(app, title, links, side) {
  if (!links.length) return null;
  const order = [...links].sort((a, b) => Math.abs(b.weight ?? 0) - Math.abs(a.weight ?? 0));
  return html("section", { class: "edges" }, html("h3", {}, title),
    html("ul", {}, order.map((link) => linkRow(app, link, link[side]))));
}

function fact(name, value) {
  return html("div", { class: "fact" }, html("dt", {}, name), html("dd", {}, value));
}

function headOf(app, title, name, words) {
  const pinned = app.pinned !== null;
  return [
    html("div", { class: "card-head" },
      html("h2", { id: "panel-title", tabindex: -1, class: name ? "" : "plain" }, title),
      html("span", { class: "pin-note" }, pinned ? "pinned · Esc lets go" : "click to pin")),
    name ? html("p", { class: "full-name" }, name) : null,
    words ? html("p", { class: "words" }, words) : null,
  ];
}

function nodePanel(app, vertex) {
  const { node } = vertex;
  const kind = kindOf(node);
  const ablation = app.payload.summary?.ablation ?? "mean";
  const { incoming, outgoing } = neighbours(app, vertex.id);
  const removed = { zero: "0", resample: "its value on another prompt" }[ablation] ?? signed(node.mean);
  return [
    ...headOf(app, `${kind.title} ${node.index}, ${whereOf(node)}`, node.name, kind.words),
    html("dl", { class: "facts" },
      isNumber(node.head) ? fact("head", String(node.head)) : null,
      fact(ablation === "mean" ? "mean, its value when removed" : "its value when removed", removed),
      ablation === "mean" ? null : fact("mean", signed(node.mean)),
      fact("loss rises without it by", isNumber(node.importance) ? signed(node.importance) : "not measured")),
    linkList(app, "Comes from", incoming, "source"),
    linkList(app, "Goes to", outgoing, "target"),
    gateNote(app, vertex),
  ];
}

function gateNote(app, vertex) {
  if (!/[qk]/.test(vertex.letter)) return null;
  const values = vertex.item.vertices.filter((v) => v.letter === "v");
  if (!values.length) return null;
  return html("section", { class: "edges" }, html("h3", {}, "Decides which tokens these values come from"),
    html("ul", {}, values.map((v) => html("li", {}, html("button", { type: "button", class: "edge-row", onclick: () => app.pin(app.targetOf(v.id), true) },
      html("span", { class: "edge-end" }, v.id), html("span", { class: "edge-note" }, "through attention"))))));
}

function endPanel(app, vertex) {
  const { incoming, outgoing } = neighbours(app, vertex.id);
  if (vertex.kind === "answer") {
    return [...headOf(app, `Answer ${visible(vertex.answer.text)}`, null, "One of the two tokens the model chooses between. Each line adds its channel, times its weight, to the score of this answer."),
      linkList(app, "Scored by", incoming, "source")];
  }
  if (vertex.more) {
    return [...headOf(app, vertex.label, null, "Tokens of the shown prompts with smaller weights into the circuit."),
      html("ul", { class: "more" }, vertex.more.flatMap((token) => token.entries.map((entry) => html("li", {}, `${visible(token.text)} → ${entry.target} `, html("span", { class: `edge-weight ${signClass(entry.weight)}` }, signed(entry.weight))))))];
  }
  return [...headOf(app, `Token ${visible(vertex.text)}`, null, "What its embedding writes into the channels that the circuit reads."),
    linkList(app, "Writes to", outgoing, "target")];
}

function heatmap(app, pattern, promptIndex) {
  const size = pattern.length;
  const cell = Math.max(3, Math.min(18, Math.floor(320 / size)));
  const tokens = app.payload.prompts[promptIndex]?.tokens ?? [];
  const canvas = html("canvas", { class: "pattern-map", width: size * cell * 2, height: size * cell * 2, role: "img", "aria-label": `Attention pattern of prompt ${promptIndex % 2 + 1}` });
  canvas.style.width = `${size * cell}px`;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--pos");
  pattern.forEach((row, i) => row.forEach((value, j) => {
    if (j > i || !isNumber(value)) return;
    context.globalAlpha = 0.06 + 0.94 * Math.max(0, Math.min(1, value));
    context.fillRect(2 * j * cell, 2 * i * cell, 2 * cell - 1, 2 * cell - 1);
  }));
  app.tip.on(canvas, (event) => {
    const box = canvas.getBoundingClientRect();
    const [j, i] = [Math.floor(((event.clientX - box.left) / box.width) * size), Math.floor(((event.clientY - box.top) / box.height) * size)];
    if (j > i || !isNumber(pattern[i]?.[j])) return null;
    return [`${visible(tokens[i] ?? i)} looks at ${visible(tokens[j] ?? j)}`, `${(pattern[i][j] * 100).toFixed(1)}%`];
  });
  return canvas;
}

function headPanel(app, head) {
  const shown = [2 * app.pair, 2 * app.pair + 1].map((i) => [i, patternOf(app, head, i)]).filter(([, pattern]) => pattern);
  const scored = head.vertices.some((v) => v.letter !== "v");
  return [
    ...headOf(app, `Attention head ${head.head}, layer ${head.layer}`, null,
      scored ? "Its queries and keys meet to make a pattern: which earlier tokens to look at. The values of those tokens pass through."
        : "None of its queries and keys is in the circuit, so its pattern hardly depends on the prompt. The values pass through it."),
    html("section", { class: "edges" }, html("h3", {}, "Channels in the circuit"),
      html("ul", {}, head.vertices.map((v) => html("li", {}, html("button", { type: "button", class: "edge-row", onclick: () => app.pin(app.targetOf(v.id), true) },
        html("span", { class: "edge-end" }, v.id), html("span", { class: "edge-note" }, kindOf(v.node).title.toLowerCase())))))),
    shown.length ? html("section", { class: "patterns" }, html("h3", {}, "Attention pattern: a row per token, the last at the bottom"),
      html("div", { class: "pattern-row" }, shown.map(([i, pattern]) => html("figure", {},
        heatmap(app, pattern, i), html("figcaption", {}, i % 2 ? "lower prompt" : "upper prompt"))))) : null,
  ];
}

function restPanel() {
  const line = (keys, words) => html("li", {}, html("kbd", {}, keys), html("span", {}, words));
  return [
    html("h2", {}, "Details"),
    html("p", { class: "words" }, "Point at a node, a line or a head to see what it is and what it does on the prompts above. Click to keep it here."),
    html("ul", { class: "keys" }, line("Tab, arrows", "go from node to node"), line("Enter / Esc", "pin, let go"),
      line("+ − 0", "zoom, fit"), line("n / p", "next, previous pair")),
  ];
}

function showPanel(app) {
  const target = app.current();
  const content = !target ? restPanel()
    : target.head ? headPanel(app, target.head)
      : target.vertex.kind === "node" ? nodePanel(app, target.vertex) : endPanel(app, target.vertex);
  const panel = document.getElementById("panel");
  panel.classList.toggle("pinned", app.pinned !== null);
  panel.replaceChildren(...content.filter(Boolean));
  panel.scrollTop = 0;
}
