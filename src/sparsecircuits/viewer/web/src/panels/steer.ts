// Steering over a bridge: what a dense model answers when it is given what sparse nodes would change, on a slider of
// strengths, beside the sparse model under the same change and beside controls.
import { scaleLinear, scaleSqrt } from "d3-scale";
import { line } from "d3-shape";
import type { App } from "../app";
import { html, plain, plural, promptsOf, svg, visible } from "../dom";
import { fileName, save } from "../export";
import type { Steer } from "../state";
import type { Steered } from "../steering";
import type { SteeringCurves } from "../types";
import { ownForm, promptSteps } from "./prompts";

type Parts = (HTMLElement | null)[];

function choose<K extends keyof Steer>(
  app: App,
  key: K,
  label: string,
  options: [Steer[K], string, string][],
): HTMLElement {
  const now = app.state.steer;
  return html(
    "div",
    { class: "steer-choice" },
    html("span", { class: "steer-label" }, label),
    html(
      "div",
      { class: "segments", role: "radiogroup", "aria-label": label },
      options.map(([value, words, title]) =>
        html(
          "button",
          {
            type: "button",
            role: "radio",
            title,
            "aria-checked": now[key] === value,
            "data-act": `${key}-${value}`,
            onclick: () => app.store.set({ steer: { ...now, [key]: value } }),
          },
          words,
        ),
      ),
    ),
  );
}

function choices(app: App): HTMLElement {
  const { answers, steering } = app.payload!;
  const chosen = app.steering.selected();
  const name = chosen.length === 1 ? (app.state.names[chosen[0]] ?? chosen[0]) : plural(chosen.length, "node");
  const answer = (i: number): string => visible(answers[i]?.text ?? "–");
  const all = plural(steering!.nodes?.length ?? 0, "read");
  return html(
    "div",
    { class: "steer-choices" },
    choose(app, "nodes", "From", [
      ["circuit", `All ${all}`, "All nodes of the circuit that read the residual stream"],
      ["selected", chosen.length ? name : "Selected", "What is selected in the picture"],
    ]),
    choose(app, "toward", "Toward", [
      ["left", answer(0), "Prompts whose answer is the other one are steered"],
      ["right", answer(1), "Prompts whose answer is the other one are steered"],
    ]),
    choose(app, "over", "On", [
      ["prompt", app.state.prompt === null ? "This pair" : "Your prompt", "The prompt on show"],
      ["task", "Task prompts", "The mean over held-out prompts of the task"],
    ]),
  );
}

/** The nodes that can be chosen, where none is. */
function nothingChosen(app: App): HTMLElement {
  const names = app.payload!.steering!.nodes ?? [];
  return html(
    "div",
    { class: "steer-none" },
    html(
      "p",
      { class: "words" },
      "Only what reads the residual stream has a direction in the dense model: select one.",
    ),
    html(
      "div",
      { class: "chips" },
      names.map((name) =>
        html(
          "button",
          { type: "button", class: "chip-button", "data-to": name, onclick: () => app.store.set({ selected: name }) },
          app.state.names[name] ?? name,
        ),
      ),
    ),
  );
}

// ------------------------------------------------------------------ the curves

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT] = [340, 150, 38, 12, 8, 20];
const LEAST = 0.05; // of the axis of probability

/** The curves over the slider's positions: strengths stand as far apart as the slider's steps. */
function picture(curves: SteeringCurves, controls: Steered["controls"], at: number): SVGSVGElement {
  const { strengths, steered, sparse, dense_means: means, counterfactual } = curves;
  const random = [controls?.random_nodes ?? [], controls?.random_directions ?? []];
  const most = Math.max(LEAST, counterfactual, ...steered, ...sparse, ...means, ...random.flat(2));
  const x = scaleSqrt([0, strengths.at(-1)!], [LEFT, WIDTH - RIGHT]);
  const y = scaleLinear([0, most], [HEIGHT - FOOT, TOP]).nice(4);
  const path = line<number>()
    .x((_value, place) => x(strengths[place]))
    .y((value) => y(value));
  const curve = (name: string, values: number[]): SVGPathElement =>
    svg("path", { class: `steer-line ${name}`, d: path(values) ?? "" });
  const here = x(strengths[at]);
  return svg(
    "svg",
    {
      class: "steer-curves",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      "aria-label": `Probability of ${curves.answer} from ${plain(steered[0])} to ${plain(steered.at(-1))}`,
    },
    y
      .ticks(4)
      .map((value) => [
        svg("path", { class: "grid", d: `M${LEFT} ${y(value).toFixed(1)}H${WIDTH - RIGHT}` }),
        svg("text", { class: "tick", x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, String(value)),
      ]),
    strengths.map((value, place) =>
      place % 2
        ? null
        : svg("text", { class: "tick", x: x(value), y: HEIGHT - 6, "text-anchor": "middle" }, String(value)),
    ),
    svg("path", { class: "steer-line other", d: `M${LEFT} ${y(counterfactual).toFixed(1)}H${WIDTH - RIGHT}` }),
    random[1].map((values) => curve("directions", values)),
    random[0].map((values) => curve("nodes", values)),
    curve("means", means),
    curve("sparse", sparse),
    curve("dense", steered),
    svg("path", { class: "steer-at", d: `M${here.toFixed(1)} ${TOP}V${HEIGHT - FOOT}` }),
    svg("circle", { class: "steer-dot sparse", cx: here, cy: y(sparse[at]), r: 3.5 }),
    svg("circle", { class: "steer-dot dense", cx: here, cy: y(steered[at]), r: 4.5 }),
  );
}

function slider(app: App, curves: SteeringCurves, at: number): HTMLElement {
  const { steered, strengths } = curves;
  return html(
    "div",
    { class: "steer-slider" },
    html("input", {
      type: "range",
      id: "strength",
      min: 0,
      max: strengths.length - 1,
      step: 1,
      value: at,
      "aria-label": "Strength",
      "aria-valuetext": `strength ${strengths[at]}: ${plain(steered[at])}`,
      oninput: ({ currentTarget }: Event) =>
        app.store.set({ steer: { ...app.state.steer, at: Number((currentTarget as HTMLInputElement).value) } }),
    }),
  );
}

function row(key: string, words: string, value: string | number, title = ""): HTMLElement {
  const mark = key
    ? svg(
        "svg",
        { class: "swatch", width: 26, height: 10, "aria-hidden": "true" },
        svg("path", { class: `steer-line ${key}`, d: "M1 5H25" }),
      )
    : html("span", { class: "swatch" });
  const shown = typeof value === "number" ? plain(value) : value;
  return html(
    "tr",
    { "data-kind": words, title: title || null },
    html("th", { scope: "row" }, html("span", { class: "steer-name" }, mark, words)),
    html("td", { "data-value": typeof value === "number" ? value : null }, shown),
  );
}

/** The numbers at the slider's position. */
function numbers({ curves, controls, trouble }: Steered, at: number): HTMLElement {
  const found = curves!;
  const largest = (draws: number[][] | undefined): number | string =>
    draws ? Math.max(...draws.map((values) => values[at])) : trouble ? "–" : "…";
  const of = controls ? `, largest of ${controls.random_nodes.length}` : "";
  return html(
    "table",
    { class: "table steer-table" },
    html(
      "thead",
      {},
      html(
        "tr",
        {},
        html("th", { scope: "col" }, "At strength ", html("b", { id: "strength-now" }, String(found.strengths[at]))),
        html("th", { scope: "col", class: "steer-answer" }, "P(", html("b", {}, visible(found.answer)), ")"),
      ),
    ),
    html(
      "tbody",
      {},
      row("dense", "dense model, steered", found.steered[at]),
      row("", "the same, of the two answers", found.steered_between[at]),
      row("sparse", "sparse model, same change", found.sparse[at]),
      row(
        "means",
        "dense model, its own means",
        found.dense_means[at],
        "The difference of its mean reads at the last token",
      ),
      row("nodes", `random nodes${of}`, largest(controls?.random_nodes), "As many others of the same sites"),
      row("directions", `random directions${of}`, largest(controls?.random_directions), "Of the same norms"),
      row(
        "other",
        found.over === "task" ? "dense model, other prompts" : "dense model, other prompt",
        found.counterfactual,
      ),
    ),
  );
}

function saveButton(app: App, { curves, controls, trouble }: Steered): HTMLElement {
  const act = (): void =>
    save(
      new Blob([JSON.stringify({ ...curves, ...controls }, null, 1)], { type: "application/json" }),
      `${fileName(app)}-steering.json`,
    );
  return html(
    "button",
    {
      type: "button",
      class: "chip-button",
      "data-act": "save-steering",
      disabled: !controls && !trouble,
      onclick: act,
    },
    "Save JSON",
  );
}

function curvesPart(app: App): Parts {
  const found = app.steering.shown;
  if (!app.steering.request()) return [nothingChosen(app)];
  if (found?.trouble && !found.curves) return [html("p", { class: "trouble", role: "alert" }, found.trouble)];
  if (!found?.curves) return [html("p", { class: "foot steer-wait", "aria-busy": "true" }, "computing…")];
  const { curves, controls } = found;
  const at = Math.min(app.state.steer.at, curves.strengths.length - 1);
  const figure = html("div", { class: "steer-figure" });
  figure.append(picture(curves, controls, at));
  return [
    figure,
    slider(app, curves, at),
    numbers(found, at),
    found.trouble ? html("p", { class: "trouble", role: "alert" }, found.trouble) : null,
    html(
      "div",
      { class: "row steer-foot" },
      saveButton(app, found),
      html(
        "span",
        { class: "foot" },
        curves.over === "task" ? promptsOf(curves.prompts, "held-out") : "this prompt alone",
      ),
    ),
  ];
}

// ------------------------------------------------------------------ the prompt

/** Which prompt it is: one of a pair, or one of one's own. */
function promptChoice(app: App): HTMLElement | null {
  const { steer, prompt } = app.state;
  if (steer.over === "task") return null;
  const steps = html("div", { class: "steer-steps" }, promptSteps(app, "steer-pair"));
  return html("div", {}, steps, prompt === null ? null : ownForm(app, "The prompt that the change is taken from"));
}

/** The prompt that is steered, and the one that the change is taken from. */
function texts(app: App): Parts {
  const curves = app.steering.shown?.curves;
  const text = (words: string, tokens: string[] | undefined): HTMLElement | null =>
    tokens
      ? html(
          "p",
          { class: "goes-on" },
          html("span", { class: "margin-label" }, words),
          html("code", {}, visible(tokens.join(""))),
        )
      : null;
  return [text("steered", curves?.prompt), text("toward", curves?.counterpart)];
}

export function steerPanel(app: App): HTMLElement[] {
  const { steering, live } = app.payload!;
  const { dense, bridge, problem } = steering!;
  if (problem) return [html("p", { class: "warning", role: "alert" }, problem)];
  if (!live) return [html("p", { class: "words" }, "The models are being loaded.")];
  const words =
    "What the nodes change here from one prompt of a pair to the other, times the strength, is added to what the " +
    `dense model ${dense} reads.`;
  const parts = [
    html("p", { class: "words", title: `bridge ${bridge}` }, words),
    choices(app),
    promptChoice(app),
    ...curvesPart(app),
    ...texts(app),
  ];
  return parts.filter((part) => part !== null);
}
