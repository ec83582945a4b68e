// Where everything goes: bands from tokens (bottom) to answers (top), few crossings, straight lanes.
//
// Words: a *vertex* is a node, token or answer. An *item* is what is placed in a band: one vertex,
// a head's box with its q, k and v, or a lane that a long link passes through. A *link* is a drawn line.

const NODE_H = 32;
const HEAD_H = 104;
const ANSWER_H = 42;
const LANE_W = 10;
const TOKENS_SHOWN = 18;
const ROWS = {
  "attn.act_in": "reads", heads: "heads", "attn.resid_delta": "writes",
  "mlp.act_in": "reads", "mlp.post_act": "neurons", "mlp.resid_delta": "writes",
};

function makeVertices(payload) {
  const vertices = new Map();
  for (const node of payload.nodes) {
    const key = !isNumber(node.layer) ? "final"
      : /^attn\.[qkv]$/.test(node.site) ? `${node.layer}.heads` : `${node.layer}.${node.site}`;
    const letter = /^attn\.[qkv]$/.test(node.site) ? node.site.slice(-1) : "";
    vertices.set(node.name, { id: node.name, kind: "node", node, bandKey: key, letter, label: String(node.index) });
  }
  payload.answers.forEach((answer, i) => {
    vertices.set(`answer:${i}`, { id: `answer:${i}`, kind: "answer", answer, bandKey: "answers", label: shorten(visible(answer.text), 14) });
  });
  return vertices;
}

/** Tokens with the largest weights first; what does not fit is gathered in one "more" vertex. */
function addTokens(payload, vertices) {
  const tokens = new Map();
  for (const entry of payload.embedding ?? []) {
    if (!vertices.has(entry.target)) continue;
    const id = `token:${entry.token_id}`;
    const token = tokens.get(id) ?? { id, kind: "token", text: entry.token, bandKey: "tokens", label: shorten(visible(entry.token), 12), size: 0, entries: [] };
    token.size = Math.max(token.size, Math.abs(entry.weight));
    token.entries.push(entry);
    tokens.set(id, token);
  }
  const ranked = [...tokens.values()].sort((a, b) => b.size - a.size);
  const room = ranked.length > TOKENS_SHOWN ? TOKENS_SHOWN - 1 : ranked.length;
  for (const token of ranked.slice(0, room)) vertices.set(token.id, token);
  const rest = ranked.slice(room);
  if (rest.length) vertices.set("token:more", { id: "token:more", kind: "token", more: rest, bandKey: "tokens", label: `+${rest.length} more`, entries: [] });
}

function makeLinks(payload, vertices) {
  const links = [];
  const add = (kind, source, target, weight) => {
    if (!vertices.has(source) || !vertices.has(target)) return;
    links.push({ kind, source, target, weight, name: `${source} → ${target}` });
  };
  for (const link of payload.residual ?? []) add("residual", link.source, link.target, null);
  for (const entry of payload.embedding ?? []) add("embedding", `token:${entry.token_id}`, entry.target, entry.weight);
  for (const edge of payload.edges) add("edge", edge.source, edge.target, edge.weight);
  for (const entry of payload.logits ?? []) add("logit", entry.source, `answer:${entry.answer}`, entry.weight);
  return links;
}

function bandOrder(payload) {
  const layers = [...new Set(payload.nodes.map((n) => n.layer).filter(isNumber))].sort((a, b) => a - b);
  const keys = [{ key: "tokens", block: "tokens", title: ["Tokens"], row: "" }];
  for (const layer of layers) {
    for (const [site, row] of Object.entries(ROWS)) {
      const part = site.startsWith("mlp") ? "mlp" : "attn";
      keys.push({ key: `${layer}.${site}`, block: `${layer}.${part}`, title: [`Layer ${layer}`, part === "mlp" ? "MLP" : "attention"], row });
    }
  }
  keys.push({ key: "final", block: "final", title: ["Final read"], row: "" });
  keys.push({ key: "answers", block: "answers", title: ["Answers"], row: "" });
  return keys;
}

function vertexWidth(vertex, nodeWidth) {
  if (vertex.kind === "answer") return Math.max(84, [...vertex.label].length * 12 + 30);
  if (vertex.kind === "token") return Math.max(46, [...vertex.label].length * 9.2 + 20);
  return Math.max(nodeWidth, (vertex.label.length + (vertex.letter ? 1.6 : 0)) * 9 + 18);
}

function makeBands(payload, vertices) {
  const nodeWidth = payload.nodes.length > 60 ? 52 : 60;
  const bands = bandOrder(payload).map((band) => ({ ...band, items: [], height: NODE_H, stagger: false }));
  const byKey = new Map(bands.map((band) => [band.key, band]));
  const heads = new Map();
  for (const vertex of vertices.values()) {
    const band = byKey.get(vertex.bandKey);
    if (!band) { vertices.delete(vertex.id); continue; }
    vertex.w = vertexWidth(vertex, nodeWidth);
    vertex.h = vertex.kind === "answer" ? ANSWER_H : NODE_H;
    vertex.dx = 0;
    if (!band.key.endsWith(".heads")) {
      vertex.item = { id: vertex.id, band, w: vertex.w, vertices: [vertex], x: 0 };
      band.items.push(vertex.item);
      continue;
    }
    const id = `head:${vertex.node.layer}.${vertex.node.head}`;
    if (!heads.has(id)) {
      heads.set(id, { id, band, head: vertex.node.head, layer: vertex.node.layer, vertices: [], x: 0, w: 0 });
      band.items.push(heads.get(id));
      band.height = HEAD_H;
    }
    vertex.item = heads.get(id);
    vertex.item.vertices.push(vertex);
  }
  for (const head of heads.values()) arrangeHead(head, () => 0);
  const kept = bands.filter((band) => band.items.length);
  kept.forEach((band, i) => { band.index = i; });
  for (const band of kept) {
    if (band.key === "answers") band.height = ANSWER_H;
    if (band.items.length > 14 && band.height === NODE_H && band.key !== "answers") {
      band.stagger = true;
      band.height = 2 * NODE_H + 12;
    }
  }
  return kept;
}

/** q and k on the left, v on the right; `wish` orders the channels inside each group. */
function arrangeHead(head, wish) {
  const group = (letter) => head.vertices.filter((v) => v.letter === letter).sort((a, b) => wish(a) - wish(b));
  const [q, k, v] = ["q", "k", "v"].map(group);
  let x = 12;
  const put = (list) => {
    const from = x;
    for (const vertex of list) { vertex.dx = x + vertex.w / 2; x += vertex.w + 8; }
    return [from, Math.max(from, x - 8)];
  };
  const left = [...q, ...k];
  head.glyph = left.length ? 0 : x + 20;
  if (left.length) {
    const [from, to] = put(left);
    head.glyph = (from + to) / 2;
    if (to - from < 56) { x = from + 64; head.glyph = Math.max(head.glyph, from + 20); }
  } else x += 64;
  x += 8;
  head.gate = v.length ? put(v) : null;
  head.w = x + (v.length ? 4 : -4);
  for (const vertex of head.vertices) vertex.dx -= head.w / 2;
  head.glyph -= head.w / 2;
  if (head.gate) head.gate = head.gate.map((edge) => edge - head.w / 2);
}

/** Gives each link its chain of ends, with shared lanes through the bands it passes. */
function makeChains(links, vertices, bands) {
  const lanes = new Map();
  for (const link of links) {
    const source = vertices.get(link.source);
    const target = vertices.get(link.target);
    const from = source.item.band.index;
    const to = target.item.band.index;
    link.chain = [{ item: source.item, vertex: source }];
    for (let i = from + 1; i < to; i++) {
      const run = link.kind === "residual" ? `r ${link.source}` : `e ${link.target} ${link.weight < 0}`;
      const key = `${run} ${i}`;
      if (!lanes.has(key)) {
        const lane = { id: key, run, band: bands[i], w: LANE_W, lane: true, vertices: [], x: 0 };
        lanes.set(key, lane);
        bands[i].items.push(lane);
      }
      link.chain.push({ item: lanes.get(key), vertex: null });
    }
    link.chain.push({ item: target.item, vertex: target });
  }
}

const endX = (end) => end.item.x + (end.vertex ? end.vertex.dx : 0);

function connect(links, bands) {
  const seen = new Set();
  for (const band of bands) for (const item of band.items) { item.up = []; item.down = []; }
  for (const { chain, kind, name } of links) {
    for (let i = 0; i + 1 < chain.length; i++) {
      const [low, high] = [chain[i], chain[i + 1]];
      if (low.item.band.index >= high.item.band.index) continue;
      const key = low.item.lane || high.item.lane ? `${(low.vertex ?? low.item).id}|${(high.vertex ?? high.item).id}` : name + kind;
      if (seen.has(key)) continue;
      seen.add(key);
      const weight = low.item.lane && high.item.lane ? 6 : kind === "residual" ? 1 : 2;
      low.item.up.push({ own: low, other: high, weight });
      high.item.down.push({ own: high, other: low, weight });
    }
  }
}

function wishOf(joints, item) {
  let sum = 0;
  let total = 0;
  for (const { own, other, weight } of joints) {
    sum += weight * (endX(other) - (own.vertex ? own.vertex.dx : 0));
    total += weight;
  }
  return total ? { x: sum / total, weight: total } : null;
}

const gapBetween = (a, b, gap) => {
  const staggered = a.band.stagger && !a.lane && !b.lane;
  return staggered ? (a.w + b.w) / 4 + 9 : (a.w + b.w) / 2 + (a.lane || b.lane ? Math.min(gap, 12) : gap);
};

function pack(band, gap) {
  let x = 0;
  band.items.forEach((item, i) => {
    if (i) x += gapBetween(band.items[i - 1], item, gap);
    item.x = x;
  });
  for (const item of band.items) item.x -= x / 2;
}

/** Crossings between a band and the one above, counted over pairs of joints. */
function crossings(band) {
  const joints = band.items.flatMap((item) => item.up.map((joint) => [endX(joint.own), endX(joint.other)]));
  joints.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let total = 0;
  for (let i = 0; i < joints.length; i++) {
    for (let j = i + 1; j < joints.length; j++) {
      if (joints[j][0] > joints[i][0] && joints[j][1] < joints[i][1]) total++;
    }
  }
  return total;
}

function orderBands(bands, gap) {
  for (const band of bands) pack(band, gap);
  const total = () => bands.reduce((sum, band) => sum + crossings(band), 0);
  let best = { score: total(), orders: bands.map((band) => [...band.items]) };
  for (let round = 0; round < 16 && best.score > 0; round++) {
    const upward = round % 2 === 0;
    for (const band of upward ? bands : [...bands].reverse()) {
      const joints = upward ? "down" : "up";
      const wishes = new Map(band.items.map((item) => [item, wishOf(item[joints], item)?.x ?? item.x]));
      band.items.sort((a, b) => wishes.get(a) - wishes.get(b));
      pack(band, gap);
    }
    const score = total();
    if (score < best.score) best = { score, orders: bands.map((band) => [...band.items]) };
  }
  bands.forEach((band, i) => { band.items = best.orders[i]; pack(band, gap); });
}

/** The positions nearest to `wishes` that keep order and distance (isotonic regression by pooling). */
function settle(band, wishes, gap) {
  const offsets = [];
  const pools = [];
  band.items.forEach((item, i) => {
    offsets.push(i ? offsets[i - 1] + gapBetween(band.items[i - 1], item, gap) : 0);
    pools.push({ sum: (wishes[i].x - offsets[i]) * wishes[i].weight, weight: wishes[i].weight, size: 1 });
    while (pools.length > 1 && pools.at(-2).sum / pools.at(-2).weight > pools.at(-1).sum / pools.at(-1).weight) {
      const last = pools.pop();
      const pool = pools.at(-1);
      pool.sum += last.sum; pool.weight += last.weight; pool.size += last.size;
    }
  });
  let i = 0;
  for (const pool of pools) {
    for (let n = 0; n < pool.size; n++, i++) band.items[i].x = pool.sum / pool.weight + offsets[i];
  }
}

/** Gives a lane that passes several bands one x, where its neighbours leave room for that. */
function straighten(bands, gap) {
  const runs = new Map();
  for (const band of bands) {
    band.items.forEach((item, i) => {
      if (!item.lane) return;
      const [before, after] = [band.items[i - 1], band.items[i + 1]];
      const run = runs.get(item.run) ?? runs.set(item.run, { items: [], low: -Infinity, high: Infinity }).get(item.run);
      run.items.push(item);
      run.room = () => {
        run.low = Math.max(...run.ends.map(([low]) => low()));
        run.high = Math.min(...run.ends.map(([, high]) => high()));
      };
      (run.ends ??= []).push([
        () => (before ? before.x + gapBetween(before, item, gap) : -Infinity),
        () => (after ? after.x - gapBetween(item, after, gap) : Infinity),
      ]);
    });
  }
  for (let round = 0; round < 3; round++) {
    for (const run of runs.values()) {
      run.room();
      if (run.low > run.high) continue;
      const mean = run.items.reduce((sum, item) => sum + item.x, 0) / run.items.length;
      for (const item of run.items) item.x = Math.max(run.low, Math.min(run.high, mean));
    }
  }
}

/** The mean x of each lane's run: what keeps a lane straight. */
function runMeans(bands) {
  const runs = new Map();
  for (const { run, x } of bands.flatMap((band) => band.items).filter((item) => item.lane)) {
    const sum = runs.get(run) ?? runs.set(run, { x: 0, n: 0 }).get(run);
    sum.x += x;
    sum.n += 1;
  }
  return new Map([...runs].map(([run, { x, n }]) => [run, x / n]));
}

function placeX(bands, gap) {
  for (const band of bands) pack(band, gap);
  for (let round = 0; round < 40; round++) {
    const side = round >= 6 ? "both" : round % 2 === 0 ? "down" : "up";
    const means = round >= 16 ? runMeans(bands) : new Map();
    for (const band of round % 2 === 0 ? bands : [...bands].reverse()) {
      const wishes = band.items.map((item) => (means.has(item.run) ? { x: means.get(item.run), weight: 12 }
        : wishOf(side === "both" ? [...item.down, ...item.up] : item[side], item)));
      const known = wishes.filter(Boolean);
      const middle = known.reduce((sum, wish) => sum + wish.x, 0) / Math.max(1, known.length);
      settle(band, wishes.map((wish, i) => wish ?? { x: known.length ? middle : band.items[i].x, weight: 0.01 }), gap);
    }
  }
  straighten(bands, gap);
  const items = bands.flatMap((band) => band.items);
  const left = Math.min(...items.map((item) => item.x - item.w / 2));
  const right = Math.max(...items.map((item) => item.x + item.w / 2));
  for (const item of items) item.x -= left;
  return right - left;
}

function placeY(bands, gap) {
  let y = 0;
  [...bands].reverse().forEach((band, i, list) => {
    if (i) y += gap + (list[i - 1].block === band.block ? 0 : 16);
    band.top = y;
    y += band.height;
    band.bottom = y;
  });
  for (const band of bands) {
    band.items.filter((item) => !item.lane).forEach((item, i) => {
      for (const vertex of item.vertices) {
        vertex.y = band.stagger && i % 2 ? band.top + NODE_H / 2
          : band.bottom - (band.key.endsWith(".heads") ? 9 : 0) - vertex.h / 2;
      }
    });
  }
  return y;
}

/** Lines that leave or enter a vertex side by side, so that they do not hide each other. */
function spreadPorts(links) {
  const groups = new Map();
  for (const link of links) {
    const ends = [["out", link.chain[0], link.chain[1]], ["in", link.chain.at(-1), link.chain.at(-2)]];
    for (const [side, own, other] of ends) {
      const key = `${side} ${own.vertex.id}`;
      const shared = link.kind === "residual" && side === "out" ? "residual" : other.item.lane ? other.item.id : link;
      const ports = groups.get(key) ?? groups.set(key, { vertex: own.vertex, ports: new Map() }).get(key);
      const port = ports.ports.get(shared) ?? { links: [], x: 0 };
      port.links.push([link, side]);
      port.x = endX(other);
      ports.ports.set(shared, port);
    }
  }
  for (const { vertex, ports } of groups.values()) {
    const list = [...ports.values()].sort((a, b) => a.x - b.x);
    const room = vertex.item.band.stagger ? 8 : vertex.w * 0.6;
    const step = Math.min(11, room / Math.max(1, list.length - 1));
    list.forEach((port, i) => {
      for (const [link, side] of port.links) link[side] = (i - (list.length - 1) / 2) * step;
    });
  }
}

/** Places everything for a window of that many pixels: as large as it can be shown whole. */
function layoutGraph(payload, window) {
  const vertices = makeVertices(payload);
  addTokens(payload, vertices);
  const bands = makeBands(payload, vertices);
  const links = makeLinks(payload, vertices);
  makeChains(links, vertices, bands);
  connect(links, bands);
  orderBands(bands, 22);
  for (const band of bands) for (const item of band.items) {
    if (!item.gate && item.glyph === undefined) continue;
    arrangeHead(item, (v) => {
      const joints = item.down.filter((joint) => joint.own.vertex === v);
      return joints.length ? joints.reduce((sum, joint) => sum + endX(joint.other), 0) / joints.length : 0;
    });
  }
  let width = placeX(bands, 22);
  const blocks = new Set(bands.map((band) => band.block)).size;
  const solid = bands.reduce((sum, band) => sum + band.height, 0) + 16 * (blocks - 1);
  const wanted = Math.max(window.height / 1.1, ((width + 150) * window.height) / window.width);
  const gapY = Math.min(70, Math.max(24, Math.min(80, width / 30), (wanted - solid) / Math.max(1, bands.length - 1)));
  const height = placeY(bands, gapY);
  const shown = Math.min(1.1, window.height / height);
  const label = Math.min(26, Math.max(14, 13 / shown)); // margin words stay readable when the whole is small
  const gutter = label * 10.2;
  const room = (0.86 * window.width) / shown - gutter;
  if (width < room) width = placeX(bands, Math.min(72, (22 * room) / width));
  spreadPorts(links);
  return { vertices, bands, links, width, height, gutter, label };
}
