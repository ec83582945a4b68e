// Groups of nodes: named, folded into one, unfolded.
import type { App } from "../app";
import { html } from "../dom";
import { isSeveral } from "../selection";

/** A field and a button that gather nodes in a group. */
export function nameForm(
  app: App,
  name: string,
  nodes: string[],
  placeholder: string,
  label: string,
  button: string,
): HTMLElement {
  return html(
    "form",
    {
      class: "row",
      "aria-label": label,
      onsubmit: (event: Event) => {
        event.preventDefault();
        const form = event.currentTarget as HTMLFormElement;
        const given = String(new FormData(form).get(name));
        form.reset();
        makeGroup(app, given, nodes);
      },
    },
    html("input", { type: "text", class: "text", name, maxlength: 80, placeholder, "aria-label": label }),
    html("button", { type: "submit", class: "chip-button" }, button),
  );
}

/** A node is in one group at most: a new group takes its nodes from the others. */
function makeGroup(app: App, name: string, nodes: string[]): void {
  const label = name.trim();
  if (!label || !nodes.length) return;
  (document.activeElement as HTMLElement | null)?.blur(); // its field is done with
  const taken = new Set(nodes);
  const others = app.state.groups
    .filter((group) => group.name !== label)
    .map((group) => ({ ...group, nodes: group.nodes.filter((each) => !taken.has(each)) }))
    .filter((group) => group.nodes.length);
  const old = app.state.groups.find((group) => group.name === label)?.nodes ?? [];
  app.store.do(`group ${label}`, {
    groups: [...others, { name: label, nodes: [...new Set([...old, ...nodes])] }],
    folded: [...new Set([...app.state.folded, label])],
    ...(isSeveral(app.state.selected) ? { selected: `group:${label}` } : {}),
  });
}

export function foldGroup(app: App, name: string): void {
  const folded = app.state.folded.includes(name);
  app.store.do(`${folded ? "unfold" : "fold"} ${name}`, {
    folded: folded ? app.state.folded.filter((each) => each !== name) : [...app.state.folded, name],
  });
}
