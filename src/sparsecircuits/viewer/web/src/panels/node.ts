// The details of a node: what it does on the prompts and on text, and every weight.
import { Refused } from "../api";
import type { App } from "../app";
import {
  SCOPES,
  byId,
  html,
  isNumber,
  kindOf,
  percent,
  plain,
  plural,
  promptsOf,
  signClass,
  signed,
  visible,
  whereOf,
} from "../dom";
import { difference, largest, tokenRow } from "../heat";
import type { Link } from "../layout/graph";
import { type Side, activationsOf, shownPrompts, sideFor, sidesOf, sidesWith, titleOfSide, wordsOf } from "../sides";
import type { Backups, CircuitNode, NodeDetails, WeightList } from "../types";
import { higherFor, shortWords } from "../words";
import { histogram } from "./histogram";
import { rowTo } from "./rows";
import { choiceOfToken, touchButtons } from "./touch";

export const fact = (name: string, value: string): HTMLElement =>
  html("div", { class: "fact" }, html("dt", {}, name), html("dd", {}, value));

export function titleOf(app: App, title: string, name: string | null, words: string | null): HTMLElement[] {
  const pinned = app.state.selected !== null;
  return [
    html(
      "div",
      { class: "card-head" },
      html("h2", { id: "panel-title", tabindex: -1 }, title),
      html(
        "span",
        { class: "row" },
        html("span", { class: "pin-note" }, pinned ? "Esc lets go" : "click to pin"),
        wideButton(app),
      ),
    ),
    name ? html("p", { class: "full-name" }, name) : null,
    words ? html("p", { class: "words" }, words) : null,
  ].filter((part) => part !== null);
}

export function wideButton(app: App): HTMLElement {
  return html(
    "button",
    {
      type: "button",
      class: "icon",
      "aria-pressed": app.state.wide,
      "aria-label": app.state.wide ? "Make this pane small" : "Make this pane large",
      title: "Larger or smaller pane (m)",
      onclick: () => app.store.set({ wide: !app.state.wide }),
    },
    app.state.wide ? "⤡" : "⤢",
  );
}

export function endName(app: App, id: string): string {
  const vertex = app.stageFor(id)?.layout?.vertices.get(id);
  if (vertex?.kind === "token") return vertex.more ? vertex.label : `token ${visible(vertex.text)}`;
  if (vertex?.kind === "answer") return `answer ${visible(vertex.answer!.text)}`;
  if (vertex?.kind === "group") return vertex.group!.name;
  return app.state.names[id] ? `${app.state.names[id]} (${id})` : id;
}

function linkRow(app: App, link: Link, other: string): HTMLElement {
  return rowTo(
    app,
    other,
    endName(app, other),
    link.kind === "residual"
      ? html("span", { class: "edge-note" }, "carried along")
      : html("span", { class: `edge-weight ${signClass(link.weight)}` }, signed(link.weight)),
  );
}

export function linkList(app: App, title: string, links: Link[], side: "source" | "target"): HTMLElement | null {
  if (!links.length) return null;
  const order = [...links].sort((a, b) => Math.abs(b.weight ?? 0) - Math.abs(a.weight ?? 0));
  return html(
    "section",
    { class: "edges" },
    html("h3", {}, title),
    html(
      "ul",
      {},
      order.slice(0, 200).map((link) => linkRow(app, link, link[side])),
    ),
  );
}

export function nodePanel(app: App, node: CircuitNode): (HTMLElement | null)[] {
  const kind = kindOf(node);
  const along = app.state.flow ? " (activation × weight, at its strongest)" : "";
  const payload = sideFor(app, node.name)?.payload;
  const ablation = payload?.summary?.ablation ?? "mean";
  const inside = app.node(node.name) !== null;
  const { incoming, outgoing } = app.stageFor(node.name)?.neighbours(node.name) ?? { incoming: [], outgoing: [] };
  const details = app.state.selected === node.name || app.source.offline ? app.detailsOf(node.name) : null;
  const mean = node.mean ?? (details && !(details instanceof Refused) ? details.mean : null);
  const removed = { mean: signed(mean), zero: "0", resample: "its value on another prompt" }[ablation];
  return [
    ...titleOf(app, `${kind.title} ${node.index}, ${whereOf(node)}`, node.name, null),
    ...onPrompts(app, node.name),
    app.state.selected === node.name ? touchButtons(app, node.name) : null,
    app.state.selected === node.name && inside ? tools(app, node.name) : null,
    html(
      "dl",
      { class: "facts" },
      isNumber(node.head)
        ? html("div", { class: "fact" }, html("dt", {}, "head"), html("dd", {}, headLink(app, node)))
        : null,
      fact(ablation === "mean" ? "mean, its value when removed" : "its value when removed", removed),
      ablation === "mean" ? null : fact("mean", signed(mean)),
      inside ? importance(app, node) : null,
      ways(payload?.backups, node.name),
    ),
    html("p", { class: "words" }, inside ? kind.words : `Not in the circuit. ${kind.words}`),
    description(app, node.name),
    linkList(app, `Comes from${along}`, incoming, "source"),
    linkList(app, `Goes to${along}`, outgoing, "target"),
    gateNote(app, node),
    ...detailParts(app, node, details),
  ];
}

/** The loss is of the circuit alone, on the prompts that pruning measured on: not those of the loss line. */
function importance(app: App, node: CircuitNode): HTMLElement {
  const on = promptsOf(sideFor(app, node.name)?.payload.summary?.n_importance, "validation");
  return html(
    "div",
    { class: "fact" },
    html("dt", {}, "loss, circuit alone, rises without it by", on ? html("span", { class: "foot" }, ` ${on}`) : null),
    html("dd", { id: "importance-of" }, isNumber(node.importance) ? signed(node.importance) : "not measured"),
  );
}

/** Whether another circuit of the task does without a node, where that was searched for. */
function ways(backups: Backups | undefined, name: string): HTMLElement | null {
  if (!backups) return null;
  const count = backups.ways.filter((nodes) => nodes.includes(name)).length;
  return fact(
    "among the circuits of this task",
    backups.core.includes(name) ? "core: nothing found replaces it" : `in ${count} of ${backups.ways.length}`,
  );
}

function headLink(app: App, node: CircuitNode): HTMLElement {
  return html(
    "button",
    { type: "button", class: "link-button", onclick: () => app.follow(`head:${node.layer}.${node.head}`) },
    `${node.head}: pattern`,
  );
}

function tools(app: App, name: string): HTMLElement {
  const field = html("input", {
    type: "text",
    class: "text",
    maxlength: 80,
    placeholder: "name this node",
    "aria-label": "Name of this node",
    value: app.state.names[name] ?? "",
    onchange: ({ currentTarget }: Event) => {
      const given = (currentTarget as HTMLInputElement).value.trim();
      const { [name]: _old, ...rest } = app.state.names;
      app.store.do(`name ${name}`, { names: given ? { ...rest, [name]: given } : rest });
    },
    onkeydown: (event: KeyboardEvent) => {
      // its keys are done with: the next ones are shortcuts
      if (event.key !== "Enter") return;
      (event.currentTarget as HTMLInputElement).blur();
      byId("panel-title").focus();
    },
  });
  return html(
    "div",
    { class: "row tools-row" },
    field,
    html(
      "button",
      {
        type: "button",
        class: "chip-button",
        title: "Leave it out of the picture (x)",
        onclick: () => app.store.do(`hide ${name}`, { hidden: [...app.state.hidden, name], selected: null }),
      },
      "Hide",
    ),
    html(
      "button",
      {
        type: "button",
        class: "chip-button",
        title: "Put it in a group (g)",
        onclick: () => app.store.set({ drawer: "find" }),
      },
      "Group…",
    ),
  );
}

/** The rule of when a node fires, with its precision and recall. */
function description(app: App, name: string): HTMLElement | null {
  const found = wordsOf(app, name);
  const payload = sideFor(app, name)?.payload;
  const higher = payload ? higherFor(payload, name) : null;
  if (!found && !higher) return null;
  const caption = payload ? shortWords(payload, name) : null;
  const { n_pairs: n, split } = payload?.ends ?? { n_pairs: 0, split: "" };
  return html(
    "div",
    { class: "card-words" },
    caption === null ? null : html("b", { class: "caption-full" }, caption),
    found ? html("p", {}, found.words) : null,
    found ? html("p", { class: "foot" }, "in the whole model, over the task's prompts") : null,
    higher
      ? html(
          "p",
          { id: "higher-for" },
          `is higher at the last token where ${visible(higher.answer)} is right, in ${percent(higher.share)} of ${n} `,
          `${split} pairs`,
          html("span", { class: "foot" }, " circuit alone"),
        )
      : null,
  );
}

function bothPrompts(app: App, name: string, side: Side): HTMLElement | null {
  const rows = activationsOf(app, name, side);
  const shown = shownPrompts(app, side);
  if (!rows || !shown.length) return null;
  const scale = largest(rows);
  const line = (label: string, tokens: string[], values: (number | null)[], key: string): HTMLElement =>
    html(
      "div",
      { class: `side-row ${key}` },
      html("span", { class: "side-label" }, label),
      tokenRow({ tokens, values, scale, label, ...choiceOfToken(app, side) }),
    );
  const parts =
    shown.length === 2
      ? [
          line("left", shown[0].tokens, rows[0], "left"),
          line("right", shown[1].tokens, rows[1], "right"),
          line("right − left", shown[1].tokens, difference(rows[0], rows[1]), "difference"),
        ]
      : [line("here", shown[0].tokens, rows[0], "left")];
  return html(
    "section",
    { class: "sides", "data-side": side.which },
    html("h3", {}, `${side.compared ? `${titleOfSide(side)}. ` : ""}${whereOfRun(app, side)}`),
    parts,
  );
}

function onPrompts(app: App, name: string): (HTMLElement | null)[] {
  if (app.state.selected !== name) return [];
  const sides = sidesWith(app, name);
  return (sides.length ? sides : sidesOf(app).slice(0, 1)).map((side) => bothPrompts(app, name, side));
}

/** On what the activations of the panel are, and of what run. */
function whereOfRun(app: App, side: Side): string {
  const prompts = app.state.prompt === null || !side.runs ? "On the pair" : "On your prompt";
  const { result } = app.runs.answers;
  if (!side.runs || !app.runs.needed || !result) return `${prompts}, ${SCOPES.circuit}`;
  const changed = app.state.touch.length || app.state.size !== null;
  return `${prompts}, ${SCOPES[result.scope]}${changed ? ", after the changes" : ""}`;
}

function gateNote(app: App, node: CircuitNode): HTMLElement | null {
  if (!/^attn\.[qk]$/.test(node.site)) return null;
  const values = (sideFor(app, node.name)?.payload.nodes ?? []).filter(
    (other) => other.layer === node.layer && other.head === node.head && other.site === "attn.v",
  );
  if (!values.length) return null;
  return html(
    "section",
    { class: "edges" },
    html("h3", {}, "Decides which tokens these values come from"),
    html(
      "ul",
      {},
      values.map((v) =>
        html(
          "li",
          {},
          html(
            "button",
            { type: "button", class: "edge-row", onclick: () => app.follow(v.name) },
            html("span", { class: "edge-end" }, v.name),
            html("span", { class: "edge-note" }, "through attention"),
          ),
        ),
      ),
    ),
  );
}

function detailParts(app: App, node: CircuitNode, details: NodeDetails | Refused | null): (HTMLElement | null)[] {
  if (app.state.selected !== node.name) return [];
  if (details instanceof Refused)
    return [
      html(
        "p",
        { class: "foot" },
        app.source.offline || !app.payload?.live
          ? "Its other weights and its examples need the model."
          : details.message,
      ),
    ];
  if (!details)
    return [
      html(
        "p",
        { class: "foot", "aria-busy": "true" },
        app.payload?.live === null ? "loading the model…" : "reading pretraining text…",
      ),
    ];
  return [...details.weights.map((list) => weightList(app, node.name, list)), textPart(details)];
}

function weightList(app: App, name: string, list: WeightList): HTMLElement {
  const inside = new Set((sideFor(app, name)?.payload.nodes ?? []).map((node) => node.name));
  const rows = list.rows.map((row) => {
    const kept = inside.has(row.name);
    const label = row.token !== undefined ? visible(row.token) : row.name.replace(/^token:/, "token ");
    const isNode = !row.name.startsWith("token:");
    return html(
      "li",
      {},
      html(
        "button",
        {
          type: "button",
          class: `edge-row${kept ? " kept" : ""}`,
          "data-to": row.name,
          disabled: !isNode,
          onclick: () => app.follow(row.name),
        },
        html("span", { class: "edge-end" }, label),
        isNode ? html("span", { class: "edge-note" }, kept ? "in the circuit" : "outside") : null,
        html("span", { class: `edge-weight ${signClass(row.weight)}` }, signed(row.weight)),
      ),
    );
  });
  const kept = list.rows.filter((row) => inside.has(row.name)).length;
  const note = list.rows.some((row) => !row.name.startsWith("token:")) ? `${kept} in the circuit` : "tokens";
  return html(
    "details",
    { class: "weights", "data-title": list.title },
    html(
      "summary",
      {},
      html("span", {}, `${list.title}: ${plural(list.total, "nonzero weight")}`),
      html("span", { class: "foot" }, note),
    ),
    html("ul", {}, rows),
    list.total > rows.length ? html("p", { class: "foot" }, `the ${rows.length} largest of ${list.total}`) : null,
  );
}

function textPart(details: NodeDetails): HTMLElement {
  const { text } = details;
  if (!text) return html("p", { class: "foot" }, `No examples: ${details.text_problem ?? "no pretraining text"}.`);
  const scale = largest(text.examples.flatMap((band) => band.items.map((item) => item.values)));
  return html(
    "section",
    { class: "text" },
    html("h3", {}, `On ${text.n_tokens.toLocaleString("en-US")} tokens of pretraining text`),
    html("p", { class: "foot" }, `active on ${percent(text.active)} of them`),
    text.histogram ? histogram(text.histogram, details.mean) : null,
    text.examples.map(({ band, items }) =>
      html(
        "div",
        { class: "band", "data-band": band },
        html(
          "h4",
          {},
          band,
          html("span", { class: "foot" }, ` ${items.length ? plain(items[0].values[items[0].at]) : ""}`),
        ),
        items.map((item) =>
          tokenRow({ tokens: item.tokens, values: item.values, scale, at: item.at, label: `Example, ${band}` }),
        ),
      ),
    ),
  );
}
