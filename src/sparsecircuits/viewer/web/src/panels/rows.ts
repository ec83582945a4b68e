// Parts that several panels are made of.
import type { App } from "../app";
import { html } from "../dom";

/** A line of a list that leads to a node, a head or another part of the picture. */
export function rowTo(app: App, to: string, label: string, note: HTMLElement | null = null): HTMLElement {
  return html(
    "li",
    {},
    html(
      "button",
      { type: "button", class: "edge-row", "data-to": to, onclick: () => app.follow(to) },
      html("span", { class: "edge-end" }, label),
      note,
    ),
  );
}

/** The head of a table. */
export function tableHead(words: string[]): HTMLElement {
  return html(
    "thead",
    {},
    html(
      "tr",
      {},
      words.map((text) => html("th", { scope: "col" }, text)),
    ),
  );
}
