// What is selected: a node's name, several as `nodes:a,b`, or `head:0.9`, `edge:a → b`, `token:7`, `answer:0`,
// `group:name`.
const SEVERAL = "nodes:";

/** The ids of what is selected together. */
export function partsOf(selected: string | null): string[] {
  if (selected === null) return [];
  return selected.startsWith(SEVERAL) ? selected.slice(SEVERAL.length).split(",") : [selected];
}

/** The id of several parts together. */
export const together = (parts: string[]): string | null => (parts.length ? SEVERAL + parts.join(",") : null);

export const isSeveral = (selected: string | null): boolean => selected?.startsWith(SEVERAL) ?? false;

const isNode = (id: string): boolean => !id.includes(":");

/** With one more node, or one less if it was among them; anything but a node is selected alone. */
export function withOneMore(selected: string | null, id: string): string | null {
  if (!isNode(id)) return id;
  const nodes = partsOf(selected).filter(isNode);
  const next = nodes.includes(id) ? nodes.filter((name) => name !== id) : [...nodes, id];
  return next.length > 1 ? SEVERAL + next.join(",") : (next[0] ?? null);
}
