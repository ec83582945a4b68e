// What is selected: a node, a head, an edge, a token, an answer or a group.
import type { App } from "../app";
import { byId, html, kindOf, plural, signClass, signed, visible } from "../dom";
import { patternMap } from "../heat";
import type { LinkKind, Vertex } from "../layout/graph";
import { refill } from "../refill";
import { isSeveral, partsOf } from "../selection";
import type { Group } from "../types";
import { type Side, patternsOf, sameModel, shownPrompts, sidesOf, titleOfSide } from "../sides";
import { comparePanel } from "./compare";
import { foldGroup, nameForm } from "./groups";
import { endName, fact, linkList, nodePanel, titleOf } from "./node";
import { reading } from "./reading";
import { rowTo } from "./rows";
import { touchButtons } from "./touch";

type Parts = (HTMLElement | null)[];

function nodeRows(app: App, names: string[]): HTMLElement {
  return html(
    "ul",
    {},
    names.map((name) =>
      rowTo(
        app,
        name,
        app.state.names[name] ?? name,
        html("span", { class: "edge-note" }, kindOf(app.anyNode(name) ?? { site: "" }).title.toLowerCase()),
      ),
    ),
  );
}

function headMaps(app: App, id: string, side: Side): HTMLElement[] {
  const title = side.compared ? [html("h3", {}, titleOfSide(side))] : [];
  const patterns = patternsOf(app, id, side);
  if (!patterns)
    return [...title, html("p", { class: "foot" }, app.runs.running ? "computing…" : "No pattern was recorded here.")];
  const shown = shownPrompts(app, side);
  const caption = (rows: unknown[], i: number): string =>
    rows.length === 2 ? ["upper prompt", "lower prompt"][i] : "your prompt";
  const maps = (rows: number[][][], words: string, key: string): HTMLElement =>
    html(
      "section",
      { class: `patterns ${key}` },
      html("h3", {}, words),
      html(
        "div",
        { class: "pattern-row" },
        rows.map((pattern, i) =>
          html(
            "figure",
            {},
            patternMap(pattern, shown[i]?.tokens ?? [], `Attention pattern, ${words}, prompt ${i + 1}`),
            html("figcaption", {}, caption(rows, i)),
          ),
        ),
      ),
    );
  const ran = side.runs && app.runs.needed && app.runs.answers.result;
  return [
    ...title,
    html("p", { class: "foot" }, "A row per token, the last at the bottom."),
    maps(patterns.shown, ran ? "After the changes" : "Kept channels only", "kept"),
    ...(patterns.full ? [maps(patterns.full, "All channels, whole model", "full")] : []),
  ];
}

function headPanel(app: App, id: string): Parts {
  const [layer, head] = id.slice(5).split(".").map(Number);
  const channelsOf = (side: Side): string[] =>
    side.payload.nodes.filter((node) => node.layer === layer && node.head === head).map((node) => node.name);
  const sides = sidesOf(app).filter(
    (side) => channelsOf(side).length && (!side.compared || sameModel(app) || side.which === app.picked),
  );
  const channels = [...new Set(sides.flatMap(channelsOf))];
  const scored = channels.some((name) => !name.includes(".attn.v."));
  return [
    ...titleOf(
      app,
      `Attention head ${head}, layer ${layer}`,
      null,
      scored
        ? "Its queries and keys meet to make a pattern: which earlier tokens to look at. The values of those " +
            "tokens pass through."
        : "None of its queries and keys is in the circuit, so its pattern hardly depends on the prompt. The " +
            "values pass through it.",
    ),
    app.state.selected === id ? touchButtons(app, id) : null,
    html("section", { class: "edges" }, html("h3", {}, "Channels in the circuit"), nodeRows(app, channels)),
    ...sides.flatMap((side) => headMaps(app, id, side)),
  ];
}

const LINKS: Record<LinkKind, [string, string]> = {
  edge: [
    "Edge",
    "One weight: what the lower node has, times the weight, is added to what the upper node is computed from.",
  ],
  residual: [
    "Residual stream",
    "No weight: the channel that the lower node writes is the one that the upper node reads.",
  ],
  embedding: ["Embedding", "What the embedding of this token writes into the channel that the node reads."],
  logit: ["Unembedding", "What the channel is multiplied by to add to the score of this answer."],
};

function edgePanel(app: App, id: string): Parts {
  const link = app.linkOf(id);
  if (!link) return restPanel(app);
  const many = link.members.length > 1;
  const [title, words] = LINKS[link.kind];
  return [
    ...titleOf(app, many ? `${title}: ${link.members.length} lines` : title, link.name, words),
    app.state.selected === id ? touchButtons(app, id) : null,
    link.kind === "residual"
      ? null
      : html(
          "dl",
          { class: "facts" },
          fact(
            app.state.flow && link.kind !== "embedding"
              ? "activation × weight, at its strongest"
              : many
                ? "largest weight"
                : "weight",
            signed(link.weight),
          ),
        ),
    html("section", { class: "edges" }, html("h3", {}, "Ends"), endRows(app, [link.source, link.target])),
    many
      ? html(
          "ul",
          { class: "more" },
          link.members.map((name) => html("li", {}, name)),
        )
      : null,
  ];
}

function endRows(app: App, ids: string[]): HTMLElement {
  return html(
    "ul",
    {},
    ids.map((id) => rowTo(app, id, endName(app, id))),
  );
}

/** What is one box because the circuit is large. */
function gatheredPanel(app: App, id: string, group: Group): Parts {
  const words = "They matter less than the nodes that have a box of their own; a line is the largest of theirs.";
  const all = html(
    "button",
    { type: "button", class: "chip-button", "data-act": "whole", onclick: () => app.store.set({ whole: true }) },
    `Draw all ${plural(app.payload!.nodes.length, "node")}`,
  );
  return [
    ...titleOf(app, group.name, null, words),
    touchButtons(app, id),
    html("div", { class: "row" }, all),
    html("section", { class: "edges" }, html("h3", {}, "Nodes"), nodeRows(app, group.nodes)),
  ];
}

function groupPanel(app: App, id: string): Parts {
  const group = app.groupNamed(id.slice(6));
  if (!group) return restPanel(app);
  if (app.rest.includes(group)) return gatheredPanel(app, id, group);
  const folded = app.state.folded.includes(group.name);
  return [
    ...titleOf(app, `Group ${group.name}`, null, plural(group.nodes.length, "node")),
    touchButtons(app, id),
    html(
      "div",
      { class: "row" },
      html(
        "button",
        { type: "button", class: "chip-button", onclick: () => foldGroup(app, group.name) },
        folded ? "Unfold" : "Fold into one",
      ),
      html(
        "button",
        {
          type: "button",
          class: "chip-button",
          onclick: () =>
            app.store.do(`dissolve ${group.name}`, {
              groups: app.state.groups.filter((g) => g !== group),
              folded: app.state.folded.filter((n) => n !== group.name),
              selected: null,
            }),
        },
        "Dissolve",
      ),
    ),
    html("section", { class: "edges" }, html("h3", {}, "Nodes"), nodeRows(app, group.nodes)),
  ];
}

/** Several nodes that were picked together. */
function severalPanel(app: App, id: string): Parts {
  const names = partsOf(id);
  return [
    ...titleOf(app, plural(names.length, "node"), null, "Shift-click adds a node or takes it out."),
    touchButtons(app, id),
    nameForm(app, "several", names, `name for these ${names.length}`, "Name of the group", "Group"),
    html("section", { class: "edges" }, html("h3", {}, "Nodes"), nodeRows(app, names)),
  ];
}

function endPanel(app: App, vertex: Vertex): Parts {
  const { incoming, outgoing } = app.stage.neighbours(vertex.id);
  if (vertex.kind === "answer") {
    return [
      ...titleOf(
        app,
        `Answer ${visible(vertex.answer!.text)}`,
        null,
        "One of the two tokens the model chooses between. Each line adds its channel, times its weight, to the " +
          "score of this answer.",
      ),
      linkList(app, "Scored by", incoming, "source"),
    ];
  }
  if (vertex.more) {
    const rows = vertex.more.flatMap((token) =>
      token.entries.map((entry) =>
        html(
          "li",
          {},
          `${visible(token.text)} → ${entry.target} `,
          html("span", { class: `edge-weight ${signClass(entry.weight)}` }, signed(entry.weight)),
        ),
      ),
    );
    return [
      ...titleOf(app, vertex.label, null, "Tokens of the shown prompts with smaller weights into the circuit."),
      html("ul", { class: "more" }, rows),
    ];
  }
  return [
    ...titleOf(
      app,
      `Token ${visible(vertex.text)}`,
      null,
      "What its embedding writes into the channels that the circuit reads.",
    ),
    linkList(app, "Writes to", outgoing, "target"),
  ];
}

function restPanel(app: App): Parts {
  const line = (keys: string, words: string): HTMLElement =>
    html("li", {}, html("kbd", {}, keys), html("span", {}, words));
  return [
    html("h2", {}, "Details"),
    reading(app),
    html(
      "p",
      { class: "words" },
      "Point at a node, a line or a head to see what it is and what it does on the prompts above. Click to keep " +
        "it here.",
    ),
    html(
      "ul",
      { class: "keys" },
      line("Tab, arrows", "go from node to node"),
      line("Enter / Esc", "pin, let go"),
      line("Shift+click", "pin several, g to group them"),
      app.payload?.live ? line("1 2 3 4", "mean, zero, resample, patch it") : null,
      line("/", "find a node"),
      line("?", "all keys"),
    ),
  ];
}

export function showDetails(app: App): void {
  const panel = byId("panel");
  const id = app.current();
  const shown = `${app.state.circuit} ${id ?? ""}`;
  const parts = contentOf(app, id).filter((part) => part !== null);
  panel.classList.toggle("pinned", app.state.selected !== null);
  if (panel.dataset.shown === shown) {
    refill(panel, parts);
    return;
  }
  const title = document.activeElement?.id === "panel-title";
  panel.dataset.shown = shown;
  panel.replaceChildren(...parts);
  panel.scrollTop = 0;
  if (title) byId("panel-title")?.focus({ preventScroll: true });
}

function contentOf(app: App, id: string | null): Parts {
  if (app.state.compare !== null && !id) return comparePanel(app);
  if (!id || !app.payload) return restPanel(app);
  if (id.startsWith("head:")) return headPanel(app, id);
  if (/^(edge|link):/.test(id)) return edgePanel(app, id);
  if (id.startsWith("group:")) return groupPanel(app, id);
  if (isSeveral(id)) return severalPanel(app, id);
  const vertex = app.stageFor(id)?.layout?.vertices.get(id);
  if (vertex && vertex.kind !== "node") return endPanel(app, vertex);
  const node = app.anyNode(id);
  return node ? nodePanel(app, node) : restPanel(app);
}
