// Find nodes by name, filter by importance, gather them in named groups.
import type { App } from "../app";
import { html, isNumber, kindOf, plain, plural } from "../dom";
import type { CircuitNode } from "../types";
import { foldGroup, nameForm } from "./groups";
import { rowTo } from "./rows";

const MOST_SHOWN = 60;

/** Nodes that a query means: by name, given name, kind, group; or a pattern such as `0.attn.*`. */
export function matching(app: App, text: string): CircuitNode[] {
  const words = text.trim().toLowerCase();
  if (!words) return [];
  const pattern = words.includes("*")
    ? new RegExp(`^${words.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*")}$`)
    : null;
  const groupsOf = (name: string): string =>
    app.state.groups
      .filter((group) => group.nodes.includes(name))
      .map((group) => group.name)
      .join(" ");
  return (app.payload?.nodes ?? []).filter((node) =>
    pattern
      ? pattern.test(node.name)
      : `${node.name} ${app.state.names[node.name] ?? ""} ${kindOf(node).title} ` +
        `${isNumber(node.head) ? `head ${node.head}` : ""} ${groupsOf(node.name)}`.toLowerCase().includes(words),
  );
}

function search(app: App, text: string): void {
  app.query = text;
  app.found = new Set(matching(app, text).map((node) => node.name));
  app.mark();
  app.tell();
}

function results(app: App): HTMLElement {
  const found = matching(app, app.query);
  return html(
    "div",
    { id: "find-results" },
    app.query
      ? html(
          "p",
          { class: "foot", role: "status" },
          found.length ? `${plural(found.length, "node")}` : "No node has that name.",
        )
      : null,
    html(
      "ul",
      {},
      found
        .slice(0, MOST_SHOWN)
        .map((node) =>
          rowTo(
            app,
            node.name,
            app.state.names[node.name] ? `${app.state.names[node.name]} (${node.name})` : node.name,
            html("span", { class: "edge-note" }, plain(node.importance)),
          ),
        ),
    ),
    found.length ? groupForm(app, found) : null,
  );
}

function groupForm(app: App, found: CircuitNode[]): HTMLElement {
  const names = found.map((node) => node.name);
  return nameForm(app, "group", names, `name for these ${found.length}`, "Name of the group", "Group");
}

function filter(app: App): HTMLElement {
  const most = Math.max(0, ...(app.payload?.nodes ?? []).map((node) => node.importance ?? 0));
  if (!most) return html("p", { class: "foot" }, "Importance was not measured in this circuit.");
  // The slider's last step may round to a hair more.
  const chosen = (event: Event): number => Math.min(most, Number((event.currentTarget as HTMLInputElement).value));
  const input = html("input", {
    type: "range",
    min: 0,
    max: most,
    step: most / 200,
    value: app.state.importance,
    "aria-label": "Least importance",
    id: "importance",
    oninput: (event: Event) => {
      (event.currentTarget as HTMLInputElement).nextElementSibling!.textContent = plain(chosen(event));
    },
    onchange: (event: Event) =>
      void app.store.do(`importance at least ${plain(chosen(event))}`, { importance: chosen(event) }),
  });
  return html("label", { class: "row filter" }, "importance ≥", input, html("output", {}, plain(app.state.importance)));
}

function groupList(app: App): HTMLElement[] {
  return app.state.groups.map((group) =>
    html(
      "li",
      { class: "row" },
      html(
        "button",
        { type: "button", class: "edge-row", onclick: () => app.store.set({ selected: `group:${group.name}` }) },
        html("span", { class: "edge-end" }, group.name),
        html("span", { class: "edge-note" }, plural(group.nodes.length, "node")),
      ),
      html(
        "button",
        { type: "button", class: "chip-button", onclick: () => foldGroup(app, group.name) },
        app.state.folded.includes(group.name) ? "Unfold" : "Fold",
      ),
    ),
  );
}

export function findPanel(app: App): HTMLElement[] {
  const { selected, hidden } = app.state;
  const field = html("input", {
    type: "search",
    id: "find",
    placeholder: "name, kind, head 9, 0.attn.*",
    "aria-label": "Find nodes",
    value: app.query,
    oninput: ({ currentTarget }: Event) => search(app, (currentTarget as HTMLInputElement).value),
  });
  const own =
    selected && app.node(selected)
      ? nameForm(app, "own", [selected], `group for ${selected}`, `Group for ${selected}`, "Add")
      : null;
  return [
    field,
    results(app),
    html("h3", {}, "Filter"),
    filter(app),
    hidden.length
      ? html(
          "p",
          { class: "row" },
          `${plural(hidden.length, "node")} hidden`,
          html(
            "button",
            { type: "button", class: "chip-button", onclick: () => app.store.do("show all", { hidden: [] }) },
            "Show all",
          ),
        )
      : html("span", {}),
    html("h3", {}, "Groups"),
    html("ul", {}, groupList(app)),
    own ??
      html(
        "p",
        { class: "foot" },
        app.state.groups.length ? "" : "Find nodes, or select one, and give the group a name.",
      ),
  ];
}

export function forgetSearch(app: App): void {
  if (!app.query && !app.found.size) return;
  app.query = "";
  app.found = new Set();
  app.mark();
}
