// Two circuits side by side: what they share, and what each has alone.
import type { App } from "../app";
import { byId, count, html, plain, plural, promptsOf } from "../dom";
import type { Payload } from "../types";
import { shownLosses } from "./header";
import { nameOf, nameOfShown } from "./names";
import { rowTo, tableHead } from "./rows";

export interface Comparison {
  shared: string[];
  first: string[];
  second: string[];
  edges: { shared: number; first: number; second: number };
}

export function compare(first: Payload, second: Payload): Comparison {
  const [a, b] = [first, second].map((payload) => new Set(payload.nodes.map((node) => node.name)));
  const [ea, eb] = [first, second].map(
    (payload) => new Set(payload.edges.map((edge) => `${edge.source} → ${edge.target}`)),
  );
  const both = [...ea].filter((name) => eb.has(name)).length;
  return {
    shared: [...a].filter((name) => b.has(name)),
    first: [...a].filter((name) => !b.has(name)),
    second: [...b].filter((name) => !a.has(name)),
    edges: { shared: both, first: ea.size - both, second: eb.size - both },
  };
}

const onPrompts = ({ summary }: Payload): string => promptsOf(summary?.n_prompts, summary?.split) || "not said";

function siteTable(first: Payload, second: Payload): HTMLElement {
  const counts = (payload: Payload): Map<string, number> => {
    const found = new Map<string, number>();
    for (const node of payload.nodes) found.set(node.site, (found.get(node.site) ?? 0) + 1);
    return found;
  };
  const [a, b] = [counts(first), counts(second)];
  return html(
    "table",
    { class: "table" },
    tableHead(["nodes by site", "left", "right"]),
    html(
      "tbody",
      {},
      [...new Set([...a.keys(), ...b.keys()])]
        .sort()
        .map((site) =>
          html(
            "tr",
            {},
            html("th", { scope: "row" }, site),
            html("td", {}, count(a.get(site) ?? 0)),
            html("td", {}, count(b.get(site) ?? 0)),
          ),
        ),
    ),
  );
}

export function comparePanel(app: App): (HTMLElement | null)[] {
  const { payload, other } = app;
  if (!payload || !other)
    return [
      html("h2", {}, "Compare"),
      html("p", { class: "foot", "aria-busy": "true" }, "opening the second circuit…"),
    ];
  const same = payload.model?.id === other.model?.id;
  const found = compare(payload, other);
  const [left, right] = [payload, other].map((each) => shownLosses(each.summary ?? {}));
  const losses = [
    ["loss, circuit alone", "loss"],
    ["loss, whole model", "full"],
    ["loss, circuit removed", "ablated"],
  ] as const;
  const row = (words: string, a: string, b: string): HTMLElement =>
    html("tr", {}, html("th", { scope: "row" }, words), html("td", {}, a), html("td", {}, b));
  const list = (title: string, names: string[]): HTMLElement | null =>
    names.length
      ? html(
          "details",
          { class: "weights", "data-title": title },
          html("summary", {}, title),
          html(
            "ul",
            {},
            names.map((name) => rowTo(app, name, name)),
          ),
        )
      : null;
  return [
    html("h2", { id: "panel-title", tabindex: -1 }, "Compare"),
    html(
      "p",
      { class: "words" },
      "Left ",
      html("b", {}, nameOfShown(app, payload, app.state.circuit)),
      ", right ",
      html("b", {}, nameOfShown(app, other, app.state.compare)),
      ".",
    ),
    same
      ? html(
          "p",
          { class: "words", id: "overlap" },
          `${plural(found.shared.length, "shared node")} (filled), ${found.first.length} only left, ` +
            `${found.second.length} only right (dashed); ${plural(found.edges.shared, "shared edge")}, ` +
            `${found.edges.first} and ${found.edges.second} own.`,
        )
      : html(
          "p",
          { class: "words", id: "overlap" },
          "The circuits belong to different models: a channel of one is no channel of the other, so they are " +
            "compared by counts.",
        ),
    html(
      "table",
      { class: "table" },
      tableHead(["", "left", "right"]),
      html(
        "tbody",
        {},
        row("nodes", count(payload.nodes.length), count(other.nodes.length)),
        row("edges", count(payload.edges.length), count(other.edges.length)),
        ...losses.map(([words, key]) => row(words, plain(left[key]), plain(right[key]))),
      ),
    ),
    html("p", { class: "foot" }, `Losses in nats: left ${onPrompts(payload)}, right ${onPrompts(other)}.`),
    ...(same
      ? [list("Shared nodes", found.shared), list("Only left", found.first), list("Only right", found.second)]
      : [siteTable(payload, other)]),
  ];
}

/** The menu that starts and ends a comparison. */
export function showCompareMenu(app: App): void {
  const menu = byId<HTMLSelectElement>("compare");
  const others = app.circuits.filter((record) => record.id !== app.state.circuit && !record.problem);
  menu.hidden = others.length === 0;
  const key = others.map((record) => record.id).join();
  if (menu.dataset.shown !== key) {
    menu.dataset.shown = key;
    menu.replaceChildren(
      html("option", { value: "" }, "Compare"),
      ...others.map((record) => html("option", { value: record.id }, nameOf(record, app.circuits))),
    );
  }
  menu.value = app.state.compare ?? "";
  byId("other-title").textContent = app.other ? nameOfShown(app, app.other, app.state.compare) : "";
  byId("this-title").textContent =
    app.state.compare !== null && app.payload ? nameOfShown(app, app.payload, app.state.circuit) : "";
}
