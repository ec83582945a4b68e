// A large circuit is drawn with the nodes that matter most; the rest of each row is gathered in one box.
import { isNumber } from "../dom";
import type { CircuitNode, Group } from "../types";
import { ROWS } from "./bands";
import { bandKeyOf } from "./graph";

export const MOST_DRAWN = 150; // nodes; of a larger circuit the rest is gathered
const KEPT = 56;
const APART = " · "; // from what a group is to where it is

/**
 * One group for each row, of what is not among the nodes that matter most. worth: how much each matters; taken: nodes
 * of groups that are folded.
 */
export function restOf(nodes: CircuitNode[], worth: Map<string, number>, taken: Set<string>): Group[] {
  if (nodes.length <= MOST_DRAWN) return [];
  const of = ({ name }: CircuitNode): number => worth.get(name) ?? 0;
  const kept = new Set([...nodes].sort((a, b) => of(b) - of(a)).slice(0, KEPT));
  const rows = new Map<string, { rest: CircuitNode[]; more: boolean }>();
  for (const node of nodes.filter(({ name }) => !taken.has(name))) {
    const row = rows.get(bandKeyOf(node)) ?? { rest: [], more: false };
    rows.set(bandKeyOf(node), row);
    if (kept.has(node)) row.more = true;
    else row.rest.push(node);
  }
  return [...rows]
    .filter(([, { rest }]) => rest.length > 1)
    .map(([key, { rest, more }]) => {
      const [{ layer, site }] = rest;
      const row = isNumber(layer) ? ROWS[key.slice(key.indexOf(".") + 1)] : "final reads";
      const what = row === "heads" ? "channels" : row;
      const where = isNumber(layer) ? `layer ${layer} ${site.split(".")[0]}` : "after the last layer";
      return {
        name: `${rest.length}${more ? " more" : ""} ${what}${APART}${where}`,
        nodes: rest.map(({ name }) => name),
      };
    });
}

/** What the box of such a group says. */
export const restLabel = (group: Group): string => group.name.split(APART)[0];
