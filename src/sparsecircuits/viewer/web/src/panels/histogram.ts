// How often a node takes which value, with the value that it is frozen at.
import { scaleLinear } from "d3-scale";
import { area, curveStepAfter } from "d3-shape";
import { plain, svg } from "../dom";
import type { Histogram } from "../types";

export function histogram({ low, high, counts }: Histogram, mean: number): SVGSVGElement {
  const [width, height] = [320, 74];
  const [from, to] = [Math.min(low, mean, 0), Math.max(high, mean, 0)];
  const x = scaleLinear([from, to === from ? from + 1 : to], [4, width - 4]);
  const y = scaleLinear([0, Math.sqrt(Math.max(...counts))], [height - 18, 6]); // rare values stay visible
  const step = (high - low) / counts.length;
  const points = [...counts, counts.at(-1) ?? 0].map((n, i) => ({ value: low + i * step, n }));
  const shape = area<{ value: number; n: number }>()
    .x((p) => x(p.value))
    .y0(height - 18)
    .y1((p) => y(Math.sqrt(p.n)))
    .curve(curveStepAfter);
  const label = (value: number, anchor: string): SVGTextElement =>
    svg("text", { x: x(value), y: height - 4, "text-anchor": anchor, class: "tick" }, plain(value));
  return svg(
    "svg",
    {
      class: "histogram",
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `Histogram of the nonzero values from ${plain(low)} to ${plain(high)}; frozen at ${plain(mean)}`,
    },
    svg("path", { class: "bars", d: shape(points) ?? "" }),
    svg("path", { class: "axis", d: `M4 ${height - 18}H${width - 4}` }),
    svg("path", { class: "mean", d: `M${x(mean).toFixed(1)} 2V${height - 18}` }),
    svg(
      "text",
      {
        class: "tick mean-label",
        x: Math.min(width - 4, Math.max(4, x(mean) + 4)),
        y: 10,
        "text-anchor": x(mean) > width * 0.7 ? "end" : "start",
      },
      `frozen at ${plain(mean)}`,
    ),
    label(from, "start"),
    label(to, "end"),
  );
}
