// Ablate, scale, patch: the buttons of what is selected, and the list of what is changed.
import { type App, SIGNS, keyOf } from "../app";
import { byId, html, plural, visible } from "../dom";
import { refill } from "../refill";
import { isSeveral, partsOf } from "../selection";
import type { TokenRow } from "../heat";
import { type Side, sameModel, shownPrompts, sidesOf } from "../sides";
import type { Kind } from "../state";
import type { Intervention } from "../types";

const WORDS: Record<Kind, [string, string]> = {
  mean: ["Mean", "Freeze at the average over pretraining text"],
  zero: ["Zero", "Set to zero"],
  resample: ["Resample", "Give it its value on another prompt of the task, drawn at random"],
  patch: ["Patch", "Give it its value on the paired prompt"],
  scale: ["Scale", "Multiply"],
};

/** What a selection means for an intervention: nodes, an edge, or every node of a group or a head; at which token. */
export function targetsOf(app: App, id: string | null): Target[] {
  const { token } = app.state;
  return partsToChange(app, id).map((part) => (token === null ? part : { ...part, before_last: token }));
}

export type Target = Pick<Intervention, "target" | "source" | "before_last">;

function partsToChange(app: App, id: string | null): Target[] {
  if (!id) return [];
  if (isSeveral(id)) return partsOf(id).map((target) => ({ target }));
  if (id.startsWith("edge:")) {
    const link = app.stage.linkOf(id);
    return (link?.members ?? [id.slice(5)]).map((name) => {
      const [source, target] = name.split(" → ");
      return { source, target };
    });
  }
  if (id.startsWith("group:")) return (app.groupNamed(id.slice(6))?.nodes ?? []).map((target) => ({ target }));
  if (id.startsWith("head:")) {
    const [layer, head] = id.slice(5).split(".").map(Number);
    return (app.payload?.nodes ?? [])
      .filter((node) => node.layer === layer && node.head === head)
      .map(({ name }) => ({ target: name }));
  }
  return app.anyNode(id) ? [{ target: id }] : [];
}

export function touchSelected(app: App, kind: Kind, factor = 0): void {
  const targets = targetsOf(app, app.state.selected);
  if (!targets.length || !app.payload?.live) return;
  const what =
    targets.length === 1
      ? keyOf({ kind, ...targets[0] })
      : `${isSeveral(app.state.selected) ? "nodes" : app.state.selected} (${targets.length})`;
  app.touch(
    targets.map((target): Intervention => ({ kind, ...target, factor })),
    `${WORDS[kind][0].toLowerCase()}${kind === "scale" ? ` ×${factor}` : ""} ${what}`,
  );
}

export function touchButtons(app: App, id: string): HTMLElement | null {
  if (!app.payload?.live) return null;
  if (app.state.compare !== null && !sameModel(app) && app.picked === "right") return null; // only the left one runs
  const targets = targetsOf(app, id);
  if (!targets.length) return null;
  const keys = targets.map((target) => keyOf({ kind: "zero", ...target }));
  const active = app.state.touch.find((change) => keys.includes(keyOf(change)));
  const button = (kind: Kind): HTMLElement =>
    html(
      "button",
      {
        type: "button",
        class: "touch-button",
        "data-kind": kind,
        "aria-pressed": active?.kind === kind,
        title: WORDS[kind][1],
        onclick: () => (active?.kind === kind ? app.untouch(keys, `release ${keys[0]}`) : touchSelected(app, kind)),
      },
      html("i", { "aria-hidden": "true" }, SIGNS[kind]),
      WORDS[kind][0],
    );
  const factor = active?.kind === "scale" ? (active.factor ?? 0) : 1;
  const slider = html("input", {
    type: "range",
    min: -2,
    max: 4,
    step: 0.1,
    value: factor,
    "aria-label": "Scale by",
    class: "factor",
    "data-kind": "scale",
    onchange: (event: Event) => touchSelected(app, "scale", Number((event.target as HTMLInputElement).value)),
    oninput: ({ currentTarget }: Event) => {
      const { value, nextElementSibling } = currentTarget as HTMLInputElement;
      nextElementSibling!.textContent = `×${Number(value)}`;
    },
  });
  const frozen = runScope(app) === "circuit" && targets.every(({ target, source }) => !app.node(source ?? target));
  return html(
    "div",
    { class: "touch", role: "group", "aria-label": "Change it" },
    frozen
      ? html("p", { class: "foot" }, "In the circuit alone it is frozen: choose “Whole model” to change it.")
      : null,
    tokenChoice(app),
    html("div", { class: "touch-row" }, (["mean", "zero", "resample", "patch"] as const).map(button)),
    html(
      "div",
      { class: "touch-row scale" },
      html("span", {}, "scale"),
      slider,
      html("output", { class: "factor-value" }, `×${factor}`),
      active
        ? html(
            "button",
            { type: "button", class: "link-button", onclick: () => app.untouch(keys, `release ${keys[0]}`) },
            "release",
          )
        : null,
    ),
  );
}

/** How a row of tokens lets one be chosen to make changes at: while something that can be changed is pinned. */
export function choiceOfToken(app: App, side: Side): Pick<TokenRow, "choose" | "chosen"> {
  const { token, selected } = app.state;
  if (!side.runs || !app.payload?.live || !partsToChange(app, selected).length) return {};
  return { chosen: token, choose: (at) => app.store.set({ token: at === token ? null : at }) };
}

/** At which token changes are made, and the way back to all. */
function tokenChoice(app: App): HTMLElement {
  const { token } = app.state;
  if (token === null)
    return html("p", { class: "foot at-token" }, "At every token; click one to change it there alone.");
  const shown = shownPrompts(app, sidesOf(app)[0]).flatMap(({ tokens }) => tokens.at(-1 - token) ?? []);
  const texts = [...new Set(shown)].map(visible).join(" or ");
  return html(
    "p",
    { class: "foot at-token" },
    "At ",
    html("b", {}, texts || "no token"),
    ` alone (${token ? plural(token, "token") + " before the last" : "the last token"}) `,
    html(
      "button",
      { type: "button", class: "link-button", onclick: () => app.store.set({ token: null }) },
      "at every token",
    ),
  );
}

/** What runs: a part of the circuit is a circuit alone. */
const runScope = (app: App): "model" | "circuit" => (app.state.size !== null ? "circuit" : app.state.scope);

/** The strip above the picture: what is changed now, in which scope, and ways back. */
export function showStrip(app: App): void {
  const strip = byId("strip");
  const { touch, size } = app.state;
  const live = app.payload?.live === true;
  strip.hidden = !(live || touch.length) || !app.payload?.nodes.length;
  if (strip.hidden) {
    strip.replaceChildren();
    return;
  }
  const act = (name: string, words: string, enabled: boolean, title: string, run: () => void): HTMLElement =>
    html(
      "button",
      { type: "button", class: "chip-button", "data-act": name, disabled: !enabled, title, onclick: run },
      words,
    );
  const sole = size !== null;
  const scopes = html(
    "div",
    { class: "segments", role: "radiogroup", "aria-label": "What runs" },
    (["circuit", "model"] as const).map((each) =>
      html(
        "button",
        {
          type: "button",
          role: "radio",
          "data-act": each,
          "aria-checked": runScope(app) === each,
          disabled: !live || (sole && each === "model"),
          title:
            each === "model"
              ? "Changes are made in the whole model"
              : "Changes are made with everything outside the circuit frozen",
          onclick: () => app.store.do(`in the ${each === "model" ? "whole model" : "circuit alone"}`, { scope: each }),
        },
        each === "model" ? "Whole model" : "Circuit alone",
      ),
    ),
  );
  const chips = touch.slice(0, 4).map((change) =>
    html(
      "button",
      {
        type: "button",
        class: "change",
        title: `${WORDS[change.kind][1]}. Click to release ${keyOf(change)}`,
        onclick: () => app.untouch([keyOf(change)], `release ${keyOf(change)}`),
      },
      html("i", {}, change.kind === "scale" ? `×${change.factor}` : SIGNS[change.kind]),
      keyOf(change),
      html("span", { class: "unseen" }, " release"),
    ),
  );
  refill(strip, [
    scopes,
    html(
      "div",
      { class: "changes" },
      touch.length
        ? chips
        : html(
            "span",
            { class: "foot" },
            app.state.compare === null
              ? "Select a node, an edge or a head, then change it."
              : "Changes are made on the left.",
          ),
      touch.length > 4 ? html("span", { class: "foot" }, `and ${plural(touch.length - 4, "more", "more")}`) : null,
    ),
    html(
      "div",
      { class: "row" },
      act("undo", "Undo", app.store.past.length > 0, "Undo (Ctrl+Z)", () => app.store.undo()),
      act("redo", "Redo", app.store.future.length > 0, "Redo (Ctrl+Shift+Z)", () => app.store.redo()),
      act("reset", "Reset", touch.length > 0, "Release everything (r)", () => app.store.do("reset", { touch: [] })),
      act("history", "History", true, "All steps (h)", () =>
        app.store.set({ drawer: app.state.drawer === "history" ? null : "history" }),
      ),
    ),
  ]);
}
