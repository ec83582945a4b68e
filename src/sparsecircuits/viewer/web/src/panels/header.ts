// Title, headline numbers, the menu of circuits.
import type { App } from "../app";
import { byId, count, html, isNumber, plain, plural, promptsOf } from "../dom";
import type { Summary } from "../types";
import { nameOf } from "./names";

export function showHeader(app: App): void {
  const { payload } = app;
  showMenu(app);
  byId("status").textContent = payload?.live === null ? "loading the model…" : "";
  if (!payload) {
    byId("description").textContent = app.trouble ? "Nothing to show" : "Opening…";
    byId("stats").replaceChildren();
    return;
  }
  const { summary = {}, model = {} } = payload;
  document.title = `${payload.title}: circuit`;
  byId("eyebrow").textContent = [
    payload.title,
    model.name ? `model ${model.name}` : null,
    isNumber(model.n_layer) ? plural(model.n_layer, "layer") : null,
  ]
    .filter(Boolean)
    .join(" · ");
  const words = payload.description || payload.task || payload.title;
  byId("description").textContent = words;
  byId("description").title = words;
  showStats(app, summary);
}

export interface Shown {
  loss?: number | null;
  full?: number | null;
  ablated?: number | null;
  raw: { full?: number | null; ablated?: number | null };
}

/** The losses that the page shows, everywhere: calibrated; files of before hold the raw ones alone. */
export function shownLosses(summary: Summary): Shown {
  const calibrated = <T>(fair: T | null | undefined, raw: T): T => fair ?? raw;
  return {
    loss: summary.loss,
    full: calibrated(summary.loss_full_calibrated, summary.loss_full),
    ablated: calibrated(summary.loss_ablated_calibrated, summary.loss_ablated),
    raw: {
      full: summary.loss_full_calibrated == null ? null : summary.loss_full,
      ablated: summary.loss_ablated_calibrated == null ? null : summary.loss_ablated,
    },
  };
}

function showStats(app: App, summary: Summary): void {
  const payload = app.payload!;
  const { loss, full, ablated, raw } = shownLosses(summary);
  const most = Math.max(...[loss, full, Math.LN2, ablated].filter(isNumber), 0.001);
  const note = (value: unknown, words: string): string => (isNumber(value) ? `raw ${plain(value)}` : words);
  const stat = (value: string, name: string, words: string, size?: number | null): HTMLElement => {
    const bar = html("i", { class: "stat-bar" });
    if (isNumber(size)) bar.style.setProperty("--size", `${Math.max(2, (100 * size) / most)}%`);
    return html(
      "div",
      { class: `stat${size === undefined ? "" : " loss"}` },
      html("dt", {}, name),
      html("dd", {}, html("b", {}, value), size === undefined ? null : bar, html("span", {}, words)),
    );
  };
  const nodes = summary.n_nodes ?? payload.nodes.length;
  const edges = summary.n_edges ?? payload.edges.length;
  byId("stats").replaceChildren(
    stat(count(nodes), nodes === 1 ? "node" : "nodes", "in the circuit"),
    stat(
      count(edges),
      edges === 1 ? "edge" : "edges",
      isNumber(payload.model?.nonzeros) ? `of ${count(payload.model!.nonzeros)} weights` : "between them",
    ),
    stat(
      plain(loss),
      "loss, circuit alone",
      isNumber(summary.target_loss) ? `target ${plain(summary.target_loss)}` : "lower is better",
      loss ?? null,
    ),
    stat(plain(full), "loss, whole model", note(raw.full, "nothing removed"), full ?? null),
    stat(
      plain(ablated),
      "loss, circuit removed",
      note(raw.ablated, isNumber(ablated) ? "all the rest kept" : "not measured"),
      ablated ?? null,
    ),
  );
  const on = promptsOf(summary.n_prompts, summary.split);
  byId("stats").setAttribute("aria-label", `Headline numbers${on ? `; losses in nats on ${on}` : ""}`);
  byId("stats-on").textContent = `losses in nats${on ? ` on ${on}` : ""}; a coin flip is ${plain(Math.LN2)}`;
}

function showMenu(app: App): void {
  const menu = byId<HTMLSelectElement>("circuits");
  menu.hidden = app.circuits.length < (app.trouble ? 1 : 2);
  const words = app.circuits.map((record) =>
    record.problem ? `${record.task} · ${record.run} (cannot be read)` : nameOf(record, app.circuits, 3),
  );
  if (menu.dataset.shown !== words.join("\n")) {
    menu.dataset.shown = words.join("\n");
    menu.replaceChildren(...app.circuits.map((record, i) => html("option", { value: record.id }, words[i])));
  }
  menu.value = app.state.circuit;
}

export function aboutText(app: App): HTMLElement[] {
  const summary = app.payload?.summary ?? {};
  const on = promptsOf(summary.n_prompts, summary.split);
  const held = {
    mean: "frozen at its average value",
    zero: "set to zero",
    resample: "given its value on another prompt",
  }[summary.ablation ?? "mean"];
  return [
    "A small language model was trained so that almost all of its weights are zero. This is the part of it that " +
      "does one task.",
    "Read from the bottom up: tokens come in, each layer reads channels of the residual stream, computes, and " +
      "writes back; the answers are scored at the top.",
    `Boxes are single neurons and channels. Every other neuron and channel was ${held}; the loss of the circuit ` +
      `alone says how well the task is done with only these.`,
    "Square boxes are channels of the residual stream or of a head, round ones are MLP neurons; the bar inside " +
      "says how much the loss of the circuit alone rises without it.",
    "A line is one weight: blue adds, orange subtracts, thicker is larger. Dashed grey lines only carry a " +
      "channel from where it is written to where it is read.",
    `Loss is how surprised the model is by the right answer of the two: 0 is certain and right, ` +
      `${plain(Math.LN2)} a coin flip.${on ? ` Those in the header are measured on ${on}.` : ""}`,
    app.payload?.live
      ? "Click a node and change it: set it to its average or to zero, scale it, or give it the value of the " +
        "paired prompt, and watch the answer."
      : "To run the model and change nodes, open the circuit with “sparsecircuits view”.",
  ].map((line) => html("p", {}, line));
}
