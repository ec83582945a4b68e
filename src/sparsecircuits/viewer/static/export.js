// Saves the picture as it looks now, whole, as one standalone SVG.

const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "font-family", "font-size", "font-weight", "letter-spacing"];

/** Copies what the style sheet says onto the elements themselves. */
function freeze(from, to) {
  const style = getComputedStyle(from);
  for (const name of STYLES) {
    const value = style.getPropertyValue(name);
    if (value) to.setAttribute(name, value);
  }
  for (const name of ["tabindex", "class", "id"]) to.removeAttribute(name);
  [...from.children].forEach((child, i) => freeze(child, to.children[i]));
}

function exportSvg(app) {
  const { layout, payload } = app;
  const world = app.world.cloneNode(true);
  freeze(app.world, world);
  world.removeAttribute("transform");
  for (const hit of world.querySelectorAll('path[stroke="rgba(0, 0, 0, 0)"]')) hit.remove();
  const root = getComputedStyle(document.documentElement);
  const color = (name) => root.getPropertyValue(name).trim();
  const font = getComputedStyle(document.body).fontFamily;
  const text = (y, size, fill, content, weight = 400) => svg("text", { x: -layout.gutter, y, "font-family": font, "font-size": size, "font-weight": weight, fill }, content);
  const [left, top] = [-layout.gutter - 28, -110];
  const [width, height] = [Math.max(640, layout.width + layout.gutter + 72), layout.height + 110 + 78];
  const title = payload.description || payload.title;
  const key = svg("g", {});
  let x = -layout.gutter;
  for (const [stroke, dash, words] of [["--line-pos", null, "positive weight"], ["--line-neg", null, "negative weight"], ["--lane", "5 5", "carried along the residual stream"]]) {
    key.append(svg("path", { d: `M${x} ${layout.height + 46}h28`, stroke: color(stroke), "stroke-width": dash ? 1.5 : 4, "stroke-dasharray": dash }),
      svg("text", { x: x + 36, y: layout.height + 50, "font-family": font, "font-size": 13, fill: color("--muted") }, words));
    x += 36 + words.length * 7 + 22;
  }
  const file = svg("svg", { xmlns: SVG, viewBox: [left, top, width, height].join(" "), width, height },
    svg("title", {}, payload.title),
    svg("rect", { x: left, y: top, width, height, fill: color("--page") }),
    text(-72, Math.max(11, Math.min(20, (width - 56) / (0.54 * title.length))), color("--ink"), title, 600),
    text(-46, 14, color("--muted"), `${payload.title} · ${plural(payload.nodes.length, "node")}, ${plural(payload.edges.length, "edge")} · loss ${plain(payload.summary?.loss)} · ${payload.model?.name ?? ""}`),
    world, key);
  return new XMLSerializer().serializeToString(file).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
}

function download(app) {
  const url = URL.createObjectURL(new Blob([exportSvg(app)], { type: "image/svg+xml" }));
  const name = String(app.payload.title).replace(/[^\w.-]+/g, "_").slice(0, 80) || "circuit";
  const link = html("a", { href: url, download: `${name}.svg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
