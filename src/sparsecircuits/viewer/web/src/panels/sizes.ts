// The size slider, on the curve of loss against size.
import { scaleLinear } from "d3-scale";
import { curveStepAfter, line } from "d3-shape";
import type { App } from "../app";
import { byId, html, isNumber, plain, promptsOf, svg } from "../dom";
import type { CurvePoint } from "../types";

export function showSizes(app: App): void {
  const bar = byId("sizes");
  const total = app.payload?.nodes.length ?? 0;
  bar.hidden = !total || !(app.payload?.live || app.payload?.curve) || app.state.compare !== null;
  if (bar.hidden) return;
  const { curve, state } = app;
  const size = state.size ?? total;
  if (!bar.querySelector("input")) build(app, bar);
  const input = bar.querySelector("input")!;
  input.max = String(total);
  if (Number(input.value) !== size) input.value = String(size);
  input.setAttribute("aria-valuetext", `${size} of ${total} nodes`);
  const point = curve?.points.filter((each) => each.size <= size).at(-1);
  bar.querySelector("output")!.textContent = `${size} of ${total} nodes`;
  const said = bar.querySelector<HTMLElement>(".size-loss")!;
  said.textContent =
    app.curveTrouble ||
    (point ? `loss, circuit alone: ${plain(point.loss)}` : app.curveTrouble === "" ? "computing the curve…" : "");
  said.title = curve ? promptsOf(curve.n_prompts, curve.split) : "";
  const box = bar.querySelector<HTMLElement>(".curve")!;
  const shown = `${size}/${total}/${curve?.points.length ?? 0}`;
  if (box.dataset.shown !== shown) {
    box.dataset.shown = shown;
    box.replaceChildren(picture(app, size, total));
  }
}

function build(app: App, bar: HTMLElement): void {
  const set = (value: number): void => {
    const total = app.payload!.nodes.length;
    app.store.set({ size: value >= total ? null : value });
    if (app.curve === null) void app.loadCurve();
  };
  const input = html("input", {
    type: "range",
    min: 0,
    step: 1,
    id: "size",
    "aria-label": "Circuit size",
    onfocus: () => void app.loadCurve(),
    onpointerenter: () => void app.loadCurve(),
    oninput: (event: Event) => set(Number((event.target as HTMLInputElement).value)),
  });
  let before: number | null = null;
  input.addEventListener("pointerdown", () => {
    before = app.state.size;
  });
  input.addEventListener("change", () => {
    // one step of history for a whole drag
    const after = app.state.size;
    if (before === after) return;
    app.store.state = { ...app.state, size: before };
    app.store.do(after === null ? "whole circuit" : `${after} nodes`, { size: after });
    before = after;
  });
  bar.append(
    html("label", { for: "size" }, "Size"),
    html("div", { class: "slider" }, html("div", { class: "curve", "aria-hidden": "true" }), input),
    html("div", { class: "size-words" }, html("output", {}), html("span", { class: "foot size-loss" })),
  );
}

const [WIDTH, HEIGHT, THUMB, TOP] = [240, 42, 8, 4];

/** The curve above the slider, on an axis of sizes; the axis and the target are there before the curve is. */
function picture(app: App, size: number, total: number): SVGSVGElement {
  const points = app.curve?.points ?? [];
  const x = scaleLinear([0, total], [THUMB, WIDTH - THUMB]);
  const y = scaleLinear([0, Math.max(Math.LN2, ...points.map((p) => p.loss))], [HEIGHT, TOP]);
  const path = line<CurvePoint>()
    .x((p) => x(p.size))
    .y((p) => y(p.loss))
    .curve(curveStepAfter);
  const target = app.payload?.summary?.target_loss;
  const here = points.filter((p) => p.size <= size).at(-1);
  const across = (at: number): string => `M${THUMB} ${at.toFixed(1)}H${WIDTH - THUMB}`;
  return svg(
    "svg",
    { width: WIDTH, height: HEIGHT + 1 },
    svg("path", { class: "axis", d: across(HEIGHT) }),
    isNumber(target)
      ? [
          svg("path", { class: "target", d: across(y(target)) }),
          svg("text", { class: "tick", x: THUMB + 1, y: y(target) - 3 }, `target ${plain(target)}`),
        ]
      : null,
    points.length ? svg("path", { class: "loss-curve", d: path(points) ?? "" }) : null,
    here ? svg("circle", { class: "here", cx: x(size), cy: y(here.loss), r: 3.5 }) : null,
  );
}
