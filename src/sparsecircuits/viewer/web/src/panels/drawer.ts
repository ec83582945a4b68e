// The drawer over the side: the faithfulness card, history, keys, and what one looks at.
import { type App, keyOf } from "../app";
import { byId, html, plural } from "../dom";
import { guideButton } from "../guide";
import { refill } from "../refill";
import type { Drawer } from "../state";
import { cardPanel } from "./card";
import { findPanel } from "./find";
import { aboutText } from "./header";
import { steerPanel } from "./steer";

const TITLES: Record<NonNullable<Drawer>, string> = {
  card: "Faithfulness card",
  history: "History",
  help: "Keys",
  about: "What am I looking at?",
  find: "Find, filter, group",
  steer: "Steer a dense model",
};

export function showDrawer(app: App): void {
  const drawer = byId("drawer");
  const bridged = app.payload?.steering !== undefined;
  const which = app.state.drawer === "steer" && !bridged ? null : app.state.drawer;
  byId("steer").hidden = !bridged;
  drawer.hidden = which === null;
  for (const button of document.querySelectorAll<HTMLElement>("[data-drawer]"))
    button.setAttribute("aria-expanded", String(button.dataset.drawer === which));
  if (which === null) {
    drawer.replaceChildren();
    delete drawer.dataset.which;
    return;
  }
  const opened = drawer.dataset.which !== which;
  drawer.dataset.which = which;
  drawer.setAttribute("aria-label", TITLES[which]);
  const panels = {
    card: cardPanel,
    history: historyPanel,
    help: helpPanel,
    about: aboutText,
    find: findPanel,
    steer: steerPanel,
  };
  const content = panels[which](app);
  if (opened) drawer.replaceChildren();
  refill(drawer, [
    html(
      "div",
      { class: "card-head" },
      html("h2", { id: "drawer-title", tabindex: -1 }, TITLES[which]),
      html(
        "button",
        {
          type: "button",
          class: "icon",
          "aria-label": "Close",
          title: "Close (Esc)",
          onclick: () => app.store.set({ drawer: null }),
        },
        "✕",
      ),
    ),
    ...content,
  ]);
  if (!opened) return;
  drawer.scrollTop = 0;
  (drawer.querySelector<HTMLElement>("input[type=search]") ?? byId("drawer-title")).focus();
}

// ------------------------------------------------------------------ history and keys

function historyPanel(app: App): HTMLElement[] {
  const { past, future } = app.store;
  const row = (label: string, state: string, act: (() => void) | null): HTMLElement =>
    html(
      "li",
      { class: state },
      html(
        "button",
        { type: "button", class: "edge-row", disabled: act === null, onclick: act ?? undefined },
        html("span", {}, label),
        html("span", { class: "edge-note" }, state === "now" ? "now" : state === "ahead" ? "undone" : ""),
      ),
    );
  const steps = past.map((step, i) =>
    row(i === 0 ? "Start" : past[i - 1].label, "", () => {
      app.store.backTo(i);
      void step;
    }),
  );
  const now = row(past.length ? past.at(-1)!.label : "Start", "now", null);
  const ahead = [...future].reverse().map((step, i) =>
    row(step.label, "ahead", () => {
      for (let n = 0; n <= i; n++) app.store.redo();
    }),
  );
  const changes = app.state.touch;
  return [
    html(
      "p",
      { class: "words" },
      changes.length
        ? `${plural(changes.length, "change")} in force: ` +
            `${changes.map(keyOf).slice(0, 8).join(", ")}${changes.length > 8 ? "…" : ""}.`
        : "Nothing is changed now.",
    ),
    html("ol", { class: "history" }, ...steps, now, ...ahead),
  ];
}

/** Keys and what they do; the last part is set where that needs the model. */
const KEYS: [string, string, true?][] = [
  ["Tab", "into the picture, then to the panes"],
  ["← ↑ → ↓", "from node to node"],
  ["Enter", "pin what has the focus; Shift+Enter, several"],
  ["g", "group them"],
  ["Esc", "close, let go"],
  ["1", "freeze it at its mean", true],
  ["2", "set it to zero", true],
  ["3", "resample it", true],
  ["4", "patch it from the pair", true],
  ["[ ]", "scale it down, up", true],
  [", .", "at one token alone: an earlier, a later one", true],
  ["u  Shift+U", "undo, redo (also Ctrl+Z, Ctrl+Shift+Z)"],
  ["r", "release everything", true],
  ["s", "whole model or circuit alone", true],
  ["x", "leave the node out of the picture"],
  ["+ − 0", "zoom in, out, show everything"],
  ["n p", "next, previous pair"],
  ["t", "type a prompt", true],
  ["/", "find, filter, group"],
  ["c", "faithfulness card"],
  ["h", "history"],
  ["m", "larger pane"],
  ["d", "dark or light"],
  ["?", "these keys"],
];

function helpPanel(app: App): HTMLElement[] {
  const keys = KEYS.filter(([, , needsModel]) => !needsModel || app.payload?.live);
  if (app.payload?.steering) keys.push(["b", "steer the dense model of the bridge"]);
  return [
    html(
      "ul",
      { class: "keys" },
      keys.map(([key, words]) => html("li", {}, html("kbd", {}, key), html("span", {}, words))),
    ),
    ...(app.source.offline ? [] : [guideButton(app)]),
  ];
}
