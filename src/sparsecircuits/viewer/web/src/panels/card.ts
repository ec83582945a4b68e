// The faithfulness card: the verdict, why, three bars and the warnings on one screen, the rest folded.
import type { App } from "../app";
import { html, plain, shorten } from "../dom";
import type { CardBar, CardPart, CardShown, CardTable } from "../types";
import { tableHead } from "./rows";

const CHIP = 46; // letters of a warning that is folded

function barRow({ name, loss, note }: CardBar, most: number, target: number): HTMLElement {
  const bar = html("i", {});
  bar.style.setProperty("--size", `${Math.min(100, (100 * loss) / most)}%`);
  const track = html(
    "span",
    { class: `bar-track${loss > most ? " clipped" : ""}`, title: loss > most ? "longer than is shown" : null },
    bar,
    html("span", { class: "bar-target" }),
  );
  track.style.setProperty("--target", `${(100 * target) / most}%`);
  return html(
    "div",
    { class: "bar-row" },
    html("span", { class: "bar-name" }, name),
    track,
    html("b", {}, plain(loss)),
    html("span", { class: "foot" }, note),
  );
}

function bars({ bars: rows, target_loss: target }: CardShown): HTMLElement {
  const most = 1.5 * Math.LN2;
  return html(
    "div",
    { class: "bars" },
    rows.map((row) => barRow(row, most, target)),
    html("p", { class: "foot" }, `The line is the target, ${plain(target)}; a coin flip is ${plain(Math.LN2)}.`),
  );
}

const chip = (text: string): HTMLElement =>
  html("details", { class: "warning-chip" }, html("summary", {}, shorten(text, CHIP)), html("p", {}, text));

function table({ rows: [head, ...rows] }: CardTable): HTMLElement {
  return html(
    "div",
    { class: "table-box", tabindex: 0, role: "group", "aria-label": head.filter(Boolean).join(", ") || "table" },
    html(
      "table",
      { class: "table card-table" },
      tableHead(head),
      html(
        "tbody",
        {},
        rows.map(([name, ...cells]) =>
          html(
            "tr",
            {},
            html("th", { scope: "row" }, name),
            cells.map((cell) => html("td", {}, cell)),
          ),
        ),
      ),
    ),
  );
}

const part = ({ title, paragraphs, tables }: CardPart): HTMLElement =>
  html(
    "details",
    { class: "weights card-part", "data-title": title },
    html("summary", {}, html("span", {}, title)),
    tables.map(table),
    paragraphs.map((text) => html("p", { class: "words" }, text)),
  );

function noCard(app: App): HTMLElement[] {
  if (app.payload?.live === null) return [html("p", { class: "words" }, "The card comes with the model.")];
  if (app.payload?.card_problem) return [html("p", { class: "warning", role: "note" }, app.payload.card_problem)];
  return [
    html("p", { class: "words" }, "No card was saved beside this circuit. Make one with:"),
    html("pre", { tabindex: 0, role: "region", "aria-label": "Command" }, "sparsecircuits report circuit.json"),
    html(
      "p",
      { class: "words" },
      "A small circuit proves little by itself: pruning finds small “circuits” for nonsense too. The card says " +
        "how sufficient and how necessary this one is.",
    ),
  ];
}

export function cardPanel(app: App): HTMLElement[] {
  const card = app.payload?.card;
  if (!card) return noCard(app);
  return [
    html(
      "div",
      { class: `verdict-box ${card.tone}` },
      html("p", { class: "verdict-words" }, `${card.verdict[0].toUpperCase()}${card.verdict.slice(1)}`),
      html("p", {}, card.why),
    ),
    html("h3", {}, `Calibrated loss, ${card.measured_on}`),
    bars(card),
    ...(card.warnings.length
      ? [html("h3", {}, "Warnings"), html("div", { class: "chips" }, card.warnings.map(chip))]
      : []),
    html(
      "details",
      { class: "weights", id: "measures", "data-title": "All measures" },
      html("summary", {}, html("span", {}, "All measures")),
      card.parts.map(part),
    ),
  ];
}
