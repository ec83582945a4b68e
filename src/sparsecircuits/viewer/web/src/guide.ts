// What a first visitor is told, in four steps; once dismissed it does not come back by itself.
import type { App } from "./app";
import { byId, html } from "./dom";
import { refill } from "./refill";

const KEY = "sparsecircuits.guide";

/** Words, and the part of the page that they are about. */
const STEPS: [string, string][] = [
  [
    "This is the part of a model that does one task. Read it from the bottom up: tokens come in, each box is one " +
      "neuron or channel, blue lines add and orange ones subtract, and the answers are scored at the top.",
    "#canvas",
  ],
  [
    "Point at a box to see what it does on the two prompts here, which differ in one place; click to pin it. Under " +
      "a box stands what it fires on.",
    "#prompts",
  ],
  [
    "A pinned box can be changed: freeze, zero, resample or patch it (keys 1 to 4), or scale it. The answers before " +
      "and after, the loss over the task and how the text goes on follow at once. Undo brings it back (u).",
    "#panel",
  ],
  [
    "How far to trust the picture stands on the card: how well the circuit does alone, and the model without it. " +
      "The address holds all you see, and Export saves it as one page. All keys: ?",
    ".actions",
  ],
];

function remembered(): boolean {
  try {
    return localStorage.getItem(KEY) !== null;
  } catch {
    return true; // a page that can keep nothing would show it for ever
  }
}

function remember(): void {
  try {
    localStorage.setItem(KEY, "done");
  } catch {
    /* it stays away until the page is loaded again */
  }
}

let step: number | null = null;

/** Begins it for who was never here, where there is a model to touch. */
export function beginGuide(app: App): void {
  if (!app.source.offline && !remembered()) step = 0;
}

function go(app: App, to: number | null): void {
  step = to;
  if (to === null) remember();
  app.tell();
}

export function showGuide(app: App): void {
  const box = byId("guide");
  const shown = app.payload?.nodes.length ? step : null;
  for (const [i, [, about]] of STEPS.entries()) document.querySelector(about)?.classList.toggle("guided", shown === i);
  box.hidden = shown === null;
  if (shown === null) return;
  const last = shown === STEPS.length - 1;
  const button = (act: string, words: string, to: number | null): HTMLElement =>
    html("button", { type: "button", class: "chip-button", "data-act": act, onclick: () => go(app, to) }, words);
  refill(box, [
    html("p", {}, html("b", {}, `${shown + 1} of ${STEPS.length}`), ` ${STEPS[shown][0]}`),
    html(
      "div",
      { class: "row" },
      shown ? button("back", "Back", shown - 1) : "",
      button("next", last ? "Done" : "Next", last ? null : shown + 1),
      last ? "" : button("end", "Do not show again", null),
    ),
  ]);
}

/** The way back to it. */
export const guideButton = (app: App): HTMLElement =>
  html(
    "button",
    { type: "button", class: "chip-button", "data-act": "guide", onclick: () => go(app, 0) },
    "Show the guide",
  );
