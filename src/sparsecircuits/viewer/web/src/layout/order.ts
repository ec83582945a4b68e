// The order of each band: barycentres, sweep by sweep, kept while crossings fall.
import type { Band, End, Item, Joint, Link, Stood, Vertex } from "./graph";

const LANE_W = 10;
const MOST_LANED = 700; // links; beyond that a link goes straight, for lanes would outnumber the nodes

export const endX = (end: End): number => end.item.x + (end.vertex ? end.vertex.dx : 0);

/** Gives each link its chain of ends, with shared lanes through the bands it passes. */
export function makeChains(links: Link[], vertices: Map<string, Vertex>, bands: Band[]): void {
  const lanes = new Map<string, Item>();
  const laned = links.length <= MOST_LANED;
  for (const link of links) {
    const source = vertices.get(link.source)!;
    const target = vertices.get(link.target)!;
    link.chain = [{ item: source.item, vertex: source }];
    const [from, to] = [source.item.band.index, target.item.band.index];
    for (let i = from + 1; laned && i < to; i++) {
      const run = link.kind === "residual" ? `r ${link.source}` : `e ${link.target} ${(link.weight ?? 0) < 0}`;
      const key = `${run} ${i}`;
      let lane = lanes.get(key);
      if (!lane) {
        lane = { id: key, run, band: bands[i], w: LANE_W, lane: true, vertices: [], x: 0, up: [], down: [] };
        lanes.set(key, lane);
        bands[i].items.push(lane);
      }
      link.chain.push({ item: lane, vertex: null });
    }
    link.chain.push({ item: target.item, vertex: target });
  }
}

export function connect(links: Link[]): void {
  const seen = new Set<string>();
  for (const { chain, kind, name } of links) {
    for (let i = 0; i + 1 < chain.length; i++) {
      const [low, high] = [chain[i], chain[i + 1]];
      if (low.item.band.index >= high.item.band.index) continue;
      const key =
        low.item.lane || high.item.lane
          ? `${(low.vertex ?? low.item).id}|${(high.vertex ?? high.item).id}`
          : name + kind;
      if (seen.has(key)) continue;
      seen.add(key);
      const weight = low.item.lane && high.item.lane ? 6 : kind === "residual" ? 1 : 2;
      low.item.up.push({ own: low, other: high, weight });
      high.item.down.push({ own: high, other: low, weight });
    }
  }
}

export function wishOf(joints: Joint[]): { x: number; weight: number } | null {
  let sum = 0;
  let total = 0;
  for (const { own, other, weight } of joints) {
    sum += weight * (endX(other) - (own.vertex ? own.vertex.dx : 0));
    total += weight;
  }
  return total ? { x: sum / total, weight: total } : null;
}

const APART = 18; // between neighbours of one row, where a band has several
const NEXT_ROW = 12; // sideways, between an item and the one after it, which stands in the next row

/** The least distance of each item's middle from that of the item before it; of the first one 0. */
export function gapsOf(items: Item[], rows: number, gap: number): number[] {
  const gaps: number[] = [];
  const standing: number[] = []; // indices of what is no lane: these stand in the rows by turns
  items.forEach((item, i) => {
    const before = items[i - 1];
    if (!before) gaps.push(0);
    else if (item.lane || before.lane) gaps.push((item.w + before.w) / (rows > 1 ? 3 : 2) + Math.min(gap, 12));
    else gaps.push(rows > 1 ? NEXT_ROW : (item.w + before.w) / 2 + gap);
    if (item.lane) return;
    const same = rows > 1 ? standing.at(-rows) : undefined;
    standing.push(i);
    if (same === undefined) return;
    const between = gaps.slice(same + 1, i).reduce((sum, each) => sum + each, 0);
    gaps[i] = Math.max(gaps[i], (item.w + items[same].w) / 2 + APART - between);
  });
  return gaps;
}

/** How wide items are in so many rows. */
export function extentIn(items: Item[], rows: number, gap: number): number {
  let [x, left, right] = [0, 0, 0];
  const gaps = gapsOf(items, rows, gap);
  items.forEach((item, i) => {
    x += gaps[i];
    left = Math.min(left, x - item.w / 2);
    right = Math.max(right, x + item.w / 2);
  });
  return right - left;
}

export function pack(band: Band, gap: number): void {
  const gaps = gapsOf(band.items, band.rows, gap);
  let x = 0;
  band.items.forEach((item, i) => {
    x += gaps[i];
    item.x = x;
  });
  for (const item of band.items) item.x -= x / 2;
}

/** Crossings between a band and those above: inversions, counted with a Fenwick tree. */
function crossings(band: Band): number {
  const joints = band.items.flatMap((item) => item.up.map((joint) => [endX(joint.own), endX(joint.other)]));
  joints.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const ranks = new Map([...new Set(joints.map((joint) => joint[1]))].sort((a, b) => a - b).map((x, i) => [x, i + 1]));
  const tree = new Int32Array(ranks.size + 1);
  let total = 0;
  let before = 0;
  for (let i = 0; i < joints.length;) {
    let end = i;
    while (end < joints.length && joints[end][0] === joints[i][0]) end++;
    for (let j = i; j < end; j++) {
      let below = 0;
      for (let k = ranks.get(joints[j][1])!; k > 0; k -= k & -k) below += tree[k];
      total += before - below;
    }
    for (let j = i; j < end; j++) for (let k = ranks.get(joints[j][1])!; k < tree.length; k += k & -k) tree[k]++;
    before += end - i;
    i = end;
  }
  return total;
}

export function orderBands(bands: Band[], gap: number): void {
  for (const band of bands) pack(band, gap);
  const total = (): number => bands.reduce((sum, band) => sum + crossings(band), 0);
  let best = { score: total(), orders: bands.map((band) => [...band.items]) };
  let idle = 0;
  for (let round = 0; round < 16 && best.score > 0 && idle < 6; round++) {
    const upward = round % 2 === 0;
    for (const band of upward ? bands : [...bands].reverse()) {
      if (band.fixed) continue;
      const joints = upward ? "down" : "up";
      const wishes = new Map(band.items.map((item) => [item, wishOf(item[joints])?.x ?? item.x]));
      band.items.sort((a, b) => wishes.get(a)! - wishes.get(b)!);
      pack(band, gap);
    }
    const score = total();
    idle = score < best.score ? 0 : idle + 1;
    if (score < best.score) best = { score, orders: bands.map((band) => [...band.items]) };
  }
  bands.forEach((band, i) => {
    band.items = best.orders[i];
    pack(band, gap);
  });
}

const meanOf = (values: (number | undefined)[]): number | null => {
  const known = values.filter((value) => value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
};

/** Where an item's vertices stood; of a group that was not drawn, where its nodes did. */
function stoodAt(item: Item, { x }: Stood): number | null {
  return meanOf(
    item.vertices.flatMap((v) =>
      x.has(v.id) ? [x.get(v.id)! - v.dx] : (v.group?.nodes ?? []).map((name) => x.get(name)),
    ),
  );
}

/** Everything where it stood; what was not there between what it is joined to. Returns what stood somewhere. */
export function orderAsBefore(bands: Band[], before: Stood): Set<Item> {
  const stood = new Set<Item>();
  for (const item of bands.flatMap((band) => band.items)) {
    const x = item.lane ? (before.x.get(item.id) ?? null) : stoodAt(item, before);
    if (x === null) continue;
    item.x = x;
    stood.add(item);
  }
  for (let round = 0; round < 4; round++) {
    for (const band of round % 2 ? [...bands].reverse() : bands)
      for (const item of band.items) if (!stood.has(item)) item.x = wishOf([...item.down, ...item.up])?.x ?? item.x;
  }
  for (const band of bands) if (!band.fixed) band.items.sort((a, b) => a.x - b.x);
  return stood;
}
