// Takes the picture and its data away: SVG, PNG, JSON, or one offline page.
import { type Kept, Refused } from "./api";
import type { App } from "./app";
import { html, plain, plural, svg } from "./dom";
import { toHash } from "./state";

const STYLES = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-linecap",
  "opacity",
  "font-family",
  "font-size",
  "font-weight",
  "letter-spacing",
];

/** Copies what the style sheet says onto the elements themselves. */
function freeze(from: Element, to: Element): void {
  const style = getComputedStyle(from);
  for (const name of STYLES) {
    const value = style.getPropertyValue(name);
    if (value) to.setAttribute(name, value);
  }
  for (const name of ["tabindex", "class", "id"]) to.removeAttribute(name);
  [...from.children].forEach((child, i) => freeze(child, to.children[i]));
}

/** The picture as it looks now, whole, as one standalone SVG. */
export function svgText(app: App): { text: string; width: number; height: number } {
  const { payload, stage } = app;
  const { layout, drawing } = stage;
  if (!payload || !layout || !drawing) throw new Refused("There is no picture to save.");
  const world = drawing.world.cloneNode(true) as SVGGElement;
  freeze(drawing.world, world);
  for (const hit of world.querySelectorAll('path[stroke="rgba(0, 0, 0, 0)"]')) hit.remove();
  const root = getComputedStyle(document.documentElement);
  const color = (name: string): string => root.getPropertyValue(name).trim();
  const font = getComputedStyle(document.body).fontFamily;
  const text = (y: number, size: number, fill: string, content: string, weight = 400): SVGTextElement =>
    svg("text", { x: -layout.gutter, y, "font-family": font, "font-size": size, "font-weight": weight, fill }, content);
  const [left, top] = [-layout.gutter - 28, -110];
  const [width, height] = [Math.max(640, layout.width + layout.gutter + 72), layout.height + 110 + 78];
  const title = payload.description || payload.title;
  const key = svg("g", {});
  let x = -layout.gutter;
  for (const [stroke, dash, words] of [
    ["--line-pos", null, "adds"],
    ["--line-neg", null, "subtracts"],
    ["--lane", "5 5", "carried along the residual stream"],
  ] as const) {
    key.append(
      svg("path", {
        d: `M${x} ${layout.height + 46}h28`,
        stroke: color(stroke),
        "stroke-width": dash ? 1.5 : 4,
        "stroke-dasharray": dash,
      }),
      svg(
        "text",
        { x: x + 36, y: layout.height + 50, "font-family": font, "font-size": 13, fill: color("--muted") },
        words,
      ),
    );
    x += 36 + words.length * 7 + 22;
  }
  const file = svg(
    "svg",
    { xmlns: "http://www.w3.org/2000/svg", viewBox: [left, top, width, height].join(" "), width, height },
    svg("title", {}, payload.title),
    svg("rect", { x: left, y: top, width, height, fill: color("--page") }),
    text(-72, Math.max(11, Math.min(20, (width - 56) / (0.54 * title.length))), color("--ink"), title, 600),
    text(
      -46,
      14,
      color("--muted"),
      `${payload.title} · ${plural(payload.nodes.length, "node")}, ${plural(payload.edges.length, "edge")} · ` +
        `loss, circuit alone ${plain(payload.summary?.loss)} · ${payload.model?.name ?? ""}`,
    ),
    world,
    key,
  );
  const clean = new XMLSerializer()
    .serializeToString(file)
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
  return { text: clean, width, height };
}

const LARGEST_SIDE = 8000; // pixels of a PNG

async function pngBlob(app: App): Promise<Blob> {
  const { text, width, height } = svgText(app);
  const scale = Math.min(2, LARGEST_SIDE / Math.max(width, height));
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = html("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  canvas.getContext("2d")!.drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  return new Promise((resolve, reject) =>
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Refused("The picture is too large for a PNG: save it as SVG."))),
      "image/png",
    ),
  );
}

/** The circuit, what is done to it, and what came of it. */
function jsonText(app: App): string {
  const { details: _details, ...payload } = app.payload!;
  const { groups, names, touch, scope, size, hidden, selected, pair, prompt } = app.state;
  return JSON.stringify(
    {
      ...payload,
      view: { groups, names, interventions: touch, scope, size, hidden, selected, pair, prompt },
      result: app.runs.answers.result,
      steered: app.steering.shown,
    },
    null,
    1,
  );
}

export function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  html("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** A name for a file about the circuit, without its ending. */
export const fileName = (app: App): string => app.payload?.title.replace(/[^\w.-]+/g, "_").slice(0, 80) || "circuit";

export type Format = "svg" | "png" | "json" | "html";

export async function exportAs(app: App, format: Format): Promise<void> {
  if (!app.payload) return;
  const name = fileName(app);
  if (format === "svg") save(new Blob([svgText(app).text], { type: "image/svg+xml" }), `${name}.svg`);
  if (format === "png") save(await pngBlob(app), `${name}.png`);
  if (format === "json") save(new Blob([jsonText(app)], { type: "application/json" }), `${name}.json`);
  if (format === "html") save(await pageBlob(app), `${name}.html`);
}

const PAYLOAD = '<script type="application/json" id="payload">';
const KEPT = /<script type="application\/json" id="kept">[^<]*<\/script>$/;

/** The page as one file, which opens as it looks now, with the last answers. */
async function pageBlob(app: App): Promise<Blob> {
  const shown = JSON.stringify(keptOf(app)); // now: the page may come late
  const page = app.source.offline ? `<!doctype html>\n${pristine}` : await servedPage(app);
  const text = shown.replace(/[<>&\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const at = page.indexOf(PAYLOAD);
  const kept = `<script type="application/json" id="kept">${text}</script>`;
  return new Blob([page.slice(0, at).replace(KEPT, ""), kept, page.slice(at)], { type: "text/html" });
}

async function servedPage(app: App): Promise<string> {
  const answer = await fetch(`api/circuits/${encodeURIComponent(app.state.circuit)}/offline`);
  if (!answer.ok) throw new Refused((await answer.text()).slice(0, 300));
  return answer.text();
}

/** A comparison needs its other circuit, and steering a bridge, which a page of one circuit has not. */
function keptOf({ state, runs }: App): Kept {
  const { groups, names } = state;
  return {
    hash: toHash({ ...state, compare: null, drawer: state.drawer === "steer" ? null : state.drawer }),
    groups,
    names,
    request: runs.needed ? runs.request() : null,
    answers: runs.answers,
  };
}

let pristine = "";
/** Remembers the page as it was opened: an offline page is its own file. */
export function rememberPage(): void {
  pristine = document.documentElement.outerHTML;
}
