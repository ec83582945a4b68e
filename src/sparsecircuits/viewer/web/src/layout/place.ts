// Where everything goes sideways: near its neighbours, in order, lanes straight.
import type { Band, Item, Link, Vertex } from "./graph";
import { endX, gapsOf, pack, wishOf } from "./order";

interface Wish {
  x: number;
  weight: number;
}

/**
 * The positions nearest to `wishes` that keep order and distance (isotonic regression by pooling), at most half the
 * room from the middle if they fit there.
 */
function settle(band: Band, wishes: Wish[], gap: number, room = Infinity): void {
  const gaps = gapsOf(band.items, band.rows, gap);
  const offsets: number[] = [];
  const pools: { sum: number; weight: number; size: number }[] = [];
  band.items.forEach((_item, i) => {
    offsets.push(i ? offsets[i - 1] + gaps[i] : 0);
    pools.push({ sum: (wishes[i].x - offsets[i]) * wishes[i].weight, weight: wishes[i].weight, size: 1 });
    while (pools.length > 1) {
      const [before, last] = pools.slice(-2);
      if (before.sum / before.weight <= last.sum / last.weight) break;
      pools.pop();
      before.sum += last.sum;
      before.weight += last.weight;
      before.size += last.size;
    }
  });
  const least = Math.max(...band.items.map((item, i) => item.w / 2 - room / 2 - offsets[i]));
  const most = Math.min(...band.items.map((item, i) => room / 2 - item.w / 2 - offsets[i]));
  const inside = (x: number): number => (least > most ? x : Math.max(least, Math.min(most, x)));
  let i = 0;
  for (const pool of pools)
    for (let n = 0; n < pool.size; n++, i++) band.items[i].x = inside(pool.sum / pool.weight) + offsets[i];
}

interface Run {
  items: Item[];
  ends: [() => number, () => number][];
}

/** Gives a lane that passes several bands one x, where its neighbours leave room for that. */
function straighten(bands: Band[], gap: number): void {
  const runs = new Map<string, Run>();
  for (const band of bands) {
    const gaps = gapsOf(band.items, band.rows, gap);
    band.items.forEach((item, i) => {
      if (!item.lane) return;
      const [before, after] = [band.items[i - 1], band.items[i + 1]];
      const run = runs.get(item.run!) ?? { items: [], ends: [] };
      runs.set(item.run!, run);
      run.items.push(item);
      run.ends.push([
        () => (before ? before.x + gaps[i] : -Infinity),
        () => (after ? after.x - gaps[i + 1] : Infinity),
      ]);
    });
  }
  for (let round = 0; round < 3; round++) {
    for (const { items, ends } of runs.values()) {
      const low = Math.max(...ends.map(([left]) => left()));
      const high = Math.min(...ends.map(([, right]) => right()));
      if (low > high) continue;
      const mean = items.reduce((sum, item) => sum + item.x, 0) / items.length;
      for (const item of items) item.x = Math.max(low, Math.min(high, mean));
    }
  }
}

/** The mean x of each lane's run: what keeps a lane straight. */
function runMeans(bands: Band[]): Map<string, number> {
  const runs = new Map<string, { x: number; n: number }>();
  for (const { run, x, lane } of bands.flatMap((band) => band.items)) {
    if (!lane) continue;
    const sum = runs.get(run!) ?? { x: 0, n: 0 };
    runs.set(run!, { x: sum.x + x, n: sum.n + 1 });
  }
  return new Map([...runs].map(([run, { x, n }]) => [run, x / n]));
}

/** Returns how wide the whole is: no wider than the room, where each band fits there. */
export function placeX(bands: Band[], gap: number, room = Infinity): number {
  for (const band of bands) pack(band, gap);
  const items = bands.flatMap((band) => band.items);
  const rounds = items.length > 1500 ? 16 : 40;
  for (let round = 0; round < rounds; round++) {
    const side = round >= 6 ? "both" : round % 2 === 0 ? "down" : "up";
    const means = round >= 16 ? runMeans(bands) : new Map<string, number>();
    for (const band of round % 2 === 0 ? bands : [...bands].reverse()) {
      const wishes = band.items.map((item) =>
        item.run && means.has(item.run)
          ? { x: means.get(item.run)!, weight: 12 }
          : wishOf(side === "both" ? [...item.down, ...item.up] : item[side]),
      );
      const known = wishes.filter((wish): wish is Wish => wish !== null);
      const middle = known.reduce((sum, wish) => sum + wish.x, 0) / Math.max(1, known.length);
      settle(
        band,
        wishes.map((wish, i) => wish ?? { x: known.length ? middle : band.items[i].x, weight: 0.01 }),
        gap,
        room,
      );
    }
  }
  straighten(bands, gap);
  const [left, width] = extentOf(items);
  for (const item of items) item.x -= left;
  return width;
}

const NARROW = 4; // the least room between what stood somewhere and what is put in between

/** Leaves what stood somewhere there, but for what would begin left of the margin; the rest makes room. */
export function placeAsBefore(bands: Band[], stood: Set<Item>): number {
  for (const band of bands)
    settle(
      band,
      band.items.map((item) => ({ x: item.x, weight: stood.has(item) ? 1e6 : 1 })),
      NARROW,
    );
  const items = bands.flatMap((band) => band.items);
  const [left, width] = extentOf(items);
  if (left < 0) for (const item of items) item.x -= left;
  return width + Math.max(0, left);
}

/** The left end of what is placed, and how wide it is. */
function extentOf(items: Item[]): [number, number] {
  let [left, right] = [Infinity, -Infinity];
  for (const item of items) {
    left = Math.min(left, item.x - item.w / 2);
    right = Math.max(right, item.x + item.w / 2);
  }
  return [left, right - left];
}

type Port = { links: [Link, "in" | "out"][]; x: number };

/** Lines that leave or enter a vertex side by side, so that they do not hide each other. */
export function spreadPorts(links: Link[]): void {
  const groups = new Map<string, { vertex: Vertex; ports: Map<unknown, Port> }>();
  for (const link of links) {
    const ends = [
      ["out", link.chain[0], link.chain[1]],
      ["in", link.chain.at(-1)!, link.chain.at(-2)!],
    ] as const;
    for (const [side, own, other] of ends) {
      const vertex = own.vertex!;
      const key = `${side} ${vertex.id}`;
      const shared = link.kind === "residual" && side === "out" ? "residual" : other.item.lane ? other.item.id : link;
      const group = groups.get(key) ?? { vertex, ports: new Map<unknown, Port>() };
      groups.set(key, group);
      const port = group.ports.get(shared) ?? { links: [], x: 0 };
      port.links.push([link, side]);
      port.x = endX(other);
      group.ports.set(shared, port);
    }
  }
  for (const { vertex, ports } of groups.values()) {
    const list = [...ports.values()].sort((a, b) => a.x - b.x);
    const room = vertex.item.band.rows > 1 ? 8 : vertex.w * 0.6;
    const step = Math.min(11, room / Math.max(1, list.length - 1));
    list.forEach((port, i) => {
      for (const [link, side] of port.links) link[side] = (i - (list.length - 1) / 2) * step;
    });
  }
}
