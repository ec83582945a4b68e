// Which nodes matter most: by measured importance, or by how much of the way to the answers goes through them.
import { isNumber } from "./dom";
import type { Payload } from "./types";

type Parts = Pick<Payload, "nodes" | "edges" | "residual" | "logits">;
const known = new WeakMap<Parts["nodes"], Map<string, number>>();

export const isMeasured = ({ nodes }: Parts): boolean => nodes.some(({ importance }) => isNumber(importance));

/** By node. Not below zero. */
export function worthOf(parts: Parts): Map<string, number> {
  const found = known.get(parts.nodes) ?? (isMeasured(parts) ? importances(parts) : shares(parts));
  known.set(parts.nodes, found);
  return found;
}

const importances = ({ nodes }: Parts): Map<string, number> =>
  new Map(nodes.map(({ name, importance }) => [name, Math.max(0, importance ?? 0)]));

/** Each node's share is divided among what comes into it by the size of the weights; a head's values share with its
 * queries and keys. */
function shares({ nodes, edges, residual = [], logits = [] }: Parts): Map<string, number> {
  const out = new Map<string, { to: string; size: number }[]>();
  const into = new Map<string, number>();
  const add = (from: string, to: string, size: number): void => {
    out.set(from, [...(out.get(from) ?? []), { to, size }]);
    into.set(to, (into.get(to) ?? 0) + size);
  };
  for (const { source, target, weight } of edges) add(source, target, Math.abs(weight ?? 0));
  for (const { source, target } of residual) add(source, target, 1);
  for (const { source, answer, weight } of logits) add(source, `answer:${answer}`, Math.abs(weight));
  const heads = new Map<string, { values: string[]; scorers: number }>();
  for (const { name, layer, head, site } of nodes) {
    if (!isNumber(head)) continue;
    const own = heads.get(`${layer}.${head}`) ?? { values: [], scorers: 0 };
    heads.set(`${layer}.${head}`, own);
    if (site === "attn.v") own.values.push(name);
    else own.scorers++;
  }
  const found = new Map<string, number>();
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const shareOf = (name: string): number => {
    if (name.startsWith("answer:")) return 1;
    const done = found.get(name);
    if (done !== undefined) return done;
    found.set(name, 0); // a file that goes in a circle comes to an end
    const { site, layer, head } = byName.get(name) ?? { site: "", layer: null, head: null };
    const own = /^attn\.[qk]$/.test(site) ? heads.get(`${layer}.${head}`) : undefined;
    const share = own
      ? own.values.reduce((sum, value) => sum + shareOf(value), 0) / own.scorers
      : (out.get(name) ?? []).reduce((sum, { to, size }) => sum + (size / (into.get(to) || 1)) * shareOf(to), 0);
    found.set(name, share);
    return share;
  };
  return new Map(nodes.map(({ name }) => [name, shareOf(name)]));
}
