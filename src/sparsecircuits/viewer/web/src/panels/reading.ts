// The circuit in sentences, from the tokens up: what each head looks at and carries, what each MLP does, and what
// the answers are scored by.
import type { App } from "../app";
import { html, isNumber, percent, plural, visible } from "../dom";
import { lookWords, looksOf } from "../looks";
import { shownPrompts, sidesOf } from "../sides";
import type { CircuitNode, Payload } from "../types";
import { LEAST_PAIRS, higherFor, shortWords } from "../words";
import { worthOf } from "../worth";

type Words = (HTMLElement | string)[];
interface Sentence {
  title: string;
  /** What a click on the title selects. */
  to: string | null;
  /** What lights up. */
  parts: string[];
  words: Words;
}

const MOST_HEADS = 6;
const MOST_NODES = 3; // of one kind in one sentence
const matter = (payload: Payload, nodes: CircuitNode[]): number =>
  nodes.reduce((sum, { name }) => sum + (worthOf(payload).get(name) ?? 0), 0);
const byWorth = (payload: Payload, nodes: CircuitNode[]): CircuitNode[] =>
  [...nodes].sort((a, b) => matter(payload, [b]) - matter(payload, [a]));
const site = (node: CircuitNode): string => node.site.replace(/^(attn|mlp)\./, "");
const LETTER: Record<string, string> = { q: "q ", k: "k ", v: "v ", post_act: "neuron " };

function list(parts: Words[]): Words {
  return parts.flatMap((part, i) => (i ? [i === parts.length - 1 ? " and " : ", ", ...part] : part));
}

/** "up by v 136, down by v 135"; nothing of a side without names. */
function bySign(upWord: string, up: Words[], downWord: string, down: Words[]): Words {
  return [
    ...(up.length ? [upWord, ...list(up)] : []),
    ...(up.length && down.length ? [", "] : []),
    ...(down.length ? [downWord, ...list(down)] : []),
  ];
}

/** A node by name, which leads to it. */
function chip(app: App, node: CircuitNode, plain = ""): HTMLElement {
  const name = app.state.names[node.name] ?? `${LETTER[site(node)] ?? ""}${node.index}`;
  return html(
    "button",
    {
      type: "button",
      class: "mention",
      "data-to": node.name,
      title: node.name,
      onclick: () => app.follow(node.name),
    },
    plain + name,
  );
}

function spoken(app: App, payload: Payload, node: CircuitNode): Words {
  const words = app.state.names[node.name] ? null : shortWords(payload, node.name);
  return words === null ? [chip(app, node)] : [chip(app, node), " ", html("span", { class: "said" }, `(${words})`)];
}

const more = (nodes: CircuitNode[]): Words[] =>
  nodes.length > MOST_NODES ? [[`${nodes.length - MOST_NODES} more`]] : [];

const someOf = (app: App, payload: Payload, nodes: CircuitNode[]): Words =>
  list([
    ...byWorth(payload, nodes)
      .slice(0, MOST_NODES)
      .map((node) => spoken(app, payload, node)),
    ...more(nodes),
  ]);

/** What nodes write, and by which sign each of them: "70 (up by v 136, down by v 135)". */
function written(app: App, payload: Payload, sources: CircuitNode[]): Words[] {
  const known = new Map(payload.nodes.map((node) => [node.name, node]));
  const from = new Map(sources.map((node) => [node.name, node]));
  const into = new Map<CircuitNode, { source: CircuitNode; weight: number }[]>();
  for (const { source, target, weight } of payload.edges) {
    const [low, high] = [from.get(source), known.get(target)];
    if (!low || !high || !isNumber(weight)) continue;
    into.set(high, [...(into.get(high) ?? []), { source: low, weight }]);
  }
  const all = byWorth(payload, [...into.keys()]);
  const said = all.slice(0, MOST_NODES).map((target): Words => {
    const by = (up: boolean): Words[] =>
      into
        .get(target)!
        .filter(({ weight }) => weight > 0 === up)
        .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight))
        .slice(0, MOST_NODES)
        .map(({ source }) => [chip(app, source)]);
    return [chip(app, target), " (", ...bySign("up by ", by(true), "down by ", by(false)), ")"];
  });
  return [...said, ...more(all)];
}

/** Where the two prompts of the pair on show part. */
function pairSentence(app: App): Sentence | null {
  const side = sidesOf(app)[0];
  const shown = side && app.state.prompt === null ? shownPrompts(app, side).map(({ tokens }) => tokens) : [];
  if (shown.length !== 2) return null;
  const [a, b] = shown;
  let start = 0;
  while (start < Math.min(a.length, b.length) && a[start] === b[start]) start++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const part = (tokens: string[]): HTMLElement | string => {
    const own = tokens.slice(start, tokens.length - end);
    if (!own.length) return "nothing";
    return html("code", {}, own.slice(0, 4).map(visible).join(" ") + (own.length > 4 ? " …" : ""));
  };
  if (start === a.length && start === b.length) return null;
  return {
    title: "Tokens",
    to: null,
    parts: [],
    words: ["The two prompts of this pair part where one has ", part(a), " and the other ", part(b), "."],
  };
}

function headSentence(app: App, payload: Payload, nodes: CircuitNode[]): Sentence {
  const { layer, head } = nodes[0];
  const of = (letter: string): CircuitNode[] => nodes.filter((node) => node.site === `attn.${letter}`);
  const [queries, keys, values] = [of("q"), of("k"), of("v")];
  const looks = looksOf(payload, layer!, head!);
  const words: Words = [];
  if (looks?.length) words.push("looks from the last token at ", html("code", {}, lookWords(looks)), ". ");
  else if (looks) words.push("looks from the last token at no token in particular. ");
  if (!queries.length && !keys.length) words.push("No query and no key is in the circuit: its look is fixed. ");
  else if (!queries.length) words.push("Its queries are frozen, so keys alone decide. ");
  if (values.length) {
    words.push("It carries ", ...someOf(app, payload, values));
    const into = written(app, payload, values);
    words.push(...(into.length ? [", and writes ", ...list(into)] : []), ".");
  }
  const id = `head:${layer}.${head}`;
  return { title: `Layer ${layer}, head ${head}`, to: id, parts: [id, ...nodes.map(({ name }) => name)], words };
}

function mlpSentence(app: App, payload: Payload, layer: number, neurons: CircuitNode[]): Sentence {
  const into = written(app, payload, neurons);
  return {
    title: `Layer ${layer}, MLP`,
    to: byWorth(payload, neurons)[0].name,
    parts: neurons.map(({ name }) => name),
    words: [
      ...someOf(app, payload, neurons),
      ...(into.length ? [neurons.length === 1 ? " writes " : " write ", ...list(into)] : []),
      ".",
    ],
  };
}

/** What the channels of the final read do to each answer. */
function answerSentence(app: App, payload: Payload): Sentence | null {
  const known = new Map(payload.nodes.map((node) => [node.name, node]));
  const lines = payload.logits ?? [];
  if (!lines.length) return null;
  const said = payload.answers.map((answer, i): Words => {
    const own = lines
      .filter((line) => line.answer === i && known.has(line.source))
      .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
    const by = (up: boolean): Words[] => {
      const all = own.filter(({ weight }) => weight > 0 === up).map(({ source }) => known.get(source)!);
      const short = all.slice(0, MOST_NODES).map((node): Words => {
        const higher = higherFor(payload, node.name);
        const words = higher ? ["higher for ", html("code", {}, visible(higher.answer))] : [];
        return [chip(app, node), words.length ? html("span", { class: "said" }, " (", words, ")") : ""];
      });
      return [...short, ...more(all)];
    };
    const ways = bySign("raised by ", by(true), "lowered by ", by(false));
    return [html("code", {}, visible(answer.text)), " is ", ...(ways.length ? ways : ["left as it is"])];
  });
  return {
    title: "Answers",
    to: null,
    parts: payload.answers.map((_answer, i) => `answer:${i}`),
    words: [...said.flatMap((each, i) => (i ? ["; ", ...each] : each)), "."],
  };
}

/** In order of the layers; of many heads and layers those that matter most, and how many there are besides. */
function sentences(app: App, payload: Payload): { said: Sentence[]; left: number } {
  const parts = new Map<string, CircuitNode[]>();
  for (const node of payload.nodes) {
    const key = isNumber(node.head)
      ? `${node.layer} a ${node.head}`
      : node.site === "mlp.post_act"
        ? `${node.layer} m`
        : "";
    if (key && isNumber(node.layer)) parts.set(key, [...(parts.get(key) ?? []), node]);
  }
  const ranked = [...parts.values()].sort((a, b) => matter(payload, b) - matter(payload, a));
  const kept = ranked.slice(0, MOST_HEADS).sort(([a], [b]) => a.layer! - b.layer! || (a.site < b.site ? -1 : 1));
  const inLayers = kept.map((nodes) =>
    isNumber(nodes[0].head) ? headSentence(app, payload, nodes) : mlpSentence(app, payload, nodes[0].layer!, nodes),
  );
  const said = [pairSentence(app), ...inLayers, answerSentence(app, payload)].filter((each) => each !== null);
  return { said, left: ranked.length - kept.length };
}

function row(app: App, { title, to, parts, words }: Sentence): HTMLElement {
  const light = (on: boolean): void => app.mean(on ? parts : []);
  return html(
    "li",
    {
      class: "sentence",
      "data-title": title,
      onpointerenter: () => light(true),
      onpointerleave: () => light(false),
    },
    to === null
      ? html("b", {}, title)
      : html("button", { type: "button", class: "mention head", "data-to": to, onclick: () => app.follow(to) }, title),
    " ",
    words,
  );
}

/** The reading; nothing for a circuit that has neither heads nor answers to speak of. */
export function reading(app: App): HTMLElement | null {
  const { payload } = app;
  if (!payload?.nodes.length) return null;
  const { said, left } = sentences(app, payload);
  if (!said.length) return null;
  const prompts = payload.prompts?.length ?? 0;
  const least = percent(LEAST_PAIRS);
  const measured = [
    prompts ? `Looks: circuit alone, ${plural(prompts, "recorded prompt")}` : "",
    payload.ends
      ? `higher at the last token: in at least ${least} of ${payload.ends.n_pairs} ${payload.ends.split} pairs`
      : "",
  ].filter(Boolean);
  return html(
    "section",
    { class: "reading", "aria-label": "The circuit in sentences" },
    html("h3", {}, "From the tokens up"),
    html(
      "ol",
      {},
      said.map((each) => row(app, each)),
    ),
    left
      ? html("p", { class: "foot" }, `${plural(left, "more head or MLP", "more heads and MLPs")}, which matter less.`)
      : null,
    measured.length ? html("p", { class: "foot" }, `${measured.join("; ")}.`) : null,
  );
}
