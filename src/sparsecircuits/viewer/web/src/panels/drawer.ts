// The drawer over the side: the faithfulness card, history, keys, and what one looks at.
import { type App, keyOf } from "../app";
import { byId, html, isNumber, plain, plural } from "../dom";
import type { Drawer } from "../state";
import { findPanel } from "./find";
import { aboutText } from "./header";

const TITLES: Record<NonNullable<Drawer>, string> = { card: "Faithfulness card", history: "History", help: "Keys", about: "What am I looking at?", find: "Find, filter, group" };

export function showDrawer(app: App): void {
  const drawer = byId("drawer");
  const { drawer: which } = app.state;
  drawer.hidden = which === null;
  for (const button of document.querySelectorAll<HTMLElement>("[data-drawer]")) button.setAttribute("aria-expanded", String(button.dataset.drawer === which));
  if (which === null) { drawer.replaceChildren(); delete drawer.dataset.which; return; }
  const opened = drawer.dataset.which !== which;
  const typing = document.activeElement instanceof HTMLInputElement && drawer.contains(document.activeElement) ? document.activeElement : null;
  if (!opened && typing) { // what is being typed stays
    if (typing.id === "find") refreshFind(app);
    return;
  }
  const scrolled = drawer.scrollTop;
  drawer.dataset.which = which;
  drawer.setAttribute("aria-label", TITLES[which]);
  const content = { card: cardPanel, history: historyPanel, help: helpPanel, about: aboutText, find: findPanel }[which](app);
  drawer.replaceChildren(html("div", { class: "card-head" }, html("h2", { id: "drawer-title", tabindex: -1 }, TITLES[which]),
    html("button", { type: "button", class: "icon", "aria-label": "Close", title: "Close (Esc)", onclick: () => app.store.set({ drawer: null }) }, "✕")), ...content);
  drawer.scrollTop = opened ? 0 : scrolled;
  if (opened) (drawer.querySelector<HTMLElement>("input[type=search]") ?? byId("drawer-title")).focus();
}

function refreshFind(app: App): void {
  const list = byId("find-results");
  const next = findPanel(app).flatMap((part) => [...part.querySelectorAll<HTMLElement>("#find-results"), ...(part.id === "find-results" ? [part] : [])])[0];
  if (list && next) list.replaceWith(next);
}

// ------------------------------------------------------------------ the card

const LOSS_ROWS: [string, string, string][] = [
  ["circuit", "circuit alone", "sufficiency: everything outside frozen"], ["full", "whole model", "nothing changed"],
  ["empty", "empty circuit", "every node frozen"], ["ablated", "circuit removed", "necessity: only the circuit frozen"],
];
/** What the losses of those rows are calibrated, raw, and how many pairs are in order; a card has all of them. */
const LOSS_FIELDS: Record<string, [string, string, string]> = {
  circuit: ["circuit", "circuit_raw", "order"], full: ["full_calibrated", "full", "order_full"],
  empty: ["empty_calibrated", "empty", "order_empty"], ablated: ["ablated_calibrated", "ablated", "order_ablated"],
};
const HEADED = new Set(["losses", "warnings", "random_ablated", "schema_version", "task", "model_name", "model_id", "descriptions"]);

function bars(rows: [string, string, number][]): HTMLElement {
  const most = Math.max(Math.LN2, ...rows.map(([, , value]) => value));
  return html("div", { class: "bars" }, rows.map(([name, note, value]) => {
    const bar = html("i", {});
    bar.style.setProperty("--size", `${(100 * value) / most}%`);
    return html("div", { class: "bar-row" }, html("span", { class: "bar-name" }, name), html("span", { class: "bar-track" }, bar), html("b", {}, plain(value)), html("span", { class: "foot" }, note));
  }));
}

function valueOf(value: unknown): HTMLElement | string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString("en-US") : plain(value);
  if (typeof value === "string") return value;
  if (Array.isArray(value)) {
    if (value.every(isNumber)) return value.length > 12 ? `${value.length} values, ${plain(Math.min(...value))} to ${plain(Math.max(...value))}` : value.map((n) => valueOf(n)).join(", ");
    return value.length > 60 ? `${value.length} entries` : html("ul", { class: "nested" }, value.map((item) => html("li", {}, valueOf(item))));
  }
  return table(Object.entries(value as object));
}

function table(entries: [string, unknown][]): HTMLElement {
  return html("table", { class: "table card-table" }, html("tbody", {}, entries.slice(0, 200).map(([name, value]) => html("tr", {}, html("th", { scope: "row" }, name.replaceAll("_", " ")), html("td", {}, valueOf(value))))));
}

/** Everything that the saved card holds: the losses as bars, warnings first, the rest as it stands. */
function cardPanel(app: App): HTMLElement[] {
  const card = app.payload?.card;
  if (!card && app.payload?.live === null) return [html("p", { class: "words" }, "The card comes with the model.")];
  if (!card && app.payload?.card_problem) return [html("p", { class: "warning", role: "note" }, app.payload.card_problem)];
  if (!card) {
    return [html("p", { class: "words" }, "No card was saved beside this circuit. Make one with:"), html("pre", { tabindex: 0, role: "region", "aria-label": "Command" }, "sparsecircuits report circuit.json"),
      html("p", { class: "words" }, "A small circuit proves little by itself: pruning finds small “circuits” for nonsense too. The card says how sufficient and how necessary this one is.")];
  }
  const losses = (card.losses ?? {}) as Record<string, unknown>;
  const rows = LOSS_ROWS.filter(([key]) => isNumber(losses[key])).map(([key, name, note]): [string, string, number] => {
    const [fair, raw, order] = LOSS_FIELDS[key].map((field) => losses[field]);
    if (!isNumber(fair) || !isNumber(raw) || !isNumber(order)) return [name, note, losses[key] as number];
    return [name, `${note}; raw ${plain(raw)}; ${Math.round(100 * order)}% of pairs in order`, fair];
  });
  if (isNumber(card.random_ablated)) rows.push(["random nodes removed", "as many, of the same sites", card.random_ablated]);
  rows.push(["coin flip", "chance, ln 2", Math.LN2]);
  const warnings = Array.isArray(card.warnings) ? card.warnings.filter((text): text is string => typeof text === "string") : [];
  const rest = Object.entries(card).filter(([key]) => !HEADED.has(key));
  const extra = Object.entries(losses).filter(([key]) => !Object.values(LOSS_FIELDS).flat().includes(key));
  return [
    ...warnings.map((text) => html("p", { class: "warning", role: "note" }, text)),
    html("h3", {}, "Loss on held-out prompts, calibrated, in nats"), bars(rows),
    html("h3", {}, "Measures"), table([...rest, ...extra]),
  ];
}

// ------------------------------------------------------------------ history and keys

function historyPanel(app: App): HTMLElement[] {
  const { past, future } = app.store;
  const row = (label: string, state: string, act: (() => void) | null): HTMLElement => html("li", { class: state },
    html("button", { type: "button", class: "edge-row", disabled: act === null, onclick: act ?? undefined }, html("span", {}, label), html("span", { class: "edge-note" }, state === "now" ? "now" : state === "ahead" ? "undone" : "")));
  const steps = past.map((step, i) => row(i === 0 ? "Start" : past[i - 1].label, "", () => { app.store.backTo(i); void step; }));
  const now = row(past.length ? past.at(-1)!.label : "Start", "now", null);
  const ahead = [...future].reverse().map((step, i) => row(step.label, "ahead", () => { for (let n = 0; n <= i; n++) app.store.redo(); }));
  const changes = app.state.touch;
  return [
    html("p", { class: "words" }, changes.length ? `${plural(changes.length, "change")} in force: ${changes.map(keyOf).slice(0, 8).join(", ")}${changes.length > 8 ? "…" : ""}.` : "Nothing is changed now."),
    html("ol", { class: "history" }, ...steps, now, ...ahead),
  ];
}

/** Keys and what they do; the last part is set where that needs the model. */
const KEYS: [string, string, true?][] = [
  ["Tab", "into the picture, then to the panes"], ["← ↑ → ↓", "from node to node"], ["Enter", "pin what has the focus"], ["Esc", "close, let go"],
  ["1", "freeze it at its mean", true], ["2", "set it to zero", true], ["3", "resample it", true], ["4", "patch it from the pair", true],
  ["[ ]", "scale it down, up", true], ["u  Shift+U", "undo, redo (also Ctrl+Z, Ctrl+Shift+Z)"], ["r", "release everything", true],
  ["s", "whole model or circuit alone", true], ["x", "leave the node out of the picture"], ["+ − 0", "zoom in, out, show everything"],
  ["n p", "next, previous pair"], ["t", "type a prompt", true], ["/", "find, filter, group"], ["c", "faithfulness card"], ["h", "history"],
  ["m", "larger pane"], ["d", "dark or light"], ["?", "these keys"],
];

function helpPanel(app: App): HTMLElement[] {
  const keys = KEYS.filter(([, , needsModel]) => !needsModel || app.payload?.live);
  return [html("ul", { class: "keys" }, keys.map(([key, words]) => html("li", {}, html("kbd", {}, key), html("span", {}, words))))];
}
