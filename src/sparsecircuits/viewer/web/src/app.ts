// What the page knows and does: state, data, picture; panels read it and call it.
import { Changed, Gone, type Kept, Refused, type Source } from "./api";
import { byId, isNumber, parseNode } from "./dom";
import type { Graph, Link } from "./layout/graph";
import { type Which, nodeOf, sameModel, sideFor } from "./sides";
import { Runs } from "./runs";
import { Steering } from "./steering";
import { type Marks, type Place, Stage } from "./stage";
import { together, withOneMore } from "./selection";
import { type State, Store, fromHash, opening, toHash } from "./state";
import { hideTip } from "./tip";
import { flowOf, withFlow } from "./flow";
import { restLabel, restOf } from "./layout/rest";
import { looksByHead } from "./looks";
import { captionsOf } from "./words";
import { worthOf } from "./worth";
import type { CircuitNode, CircuitRecord, Curve, Group, Intervention, NodeDetails, Payload } from "./types";

const RETRY = 1000; // ms

export const SIGNS: Record<Intervention["kind"], string> = {
  mean: "μ",
  zero: "0",
  resample: "?",
  scale: "×",
  patch: "⇄",
};

/** What a change is made to. */
export const partOf = (change: Intervention): string =>
  change.source ? `${change.source} → ${change.target}` : change.target;

/** What a change is made to, and at which token. */
export const keyOf = (change: Intervention): string =>
  `${partOf(change)}${isNumber(change.before_last) ? ` at ${tokenWords(change.before_last)}` : ""}`;

/** Which token, counted from a prompt's end. */
export const tokenWords = (beforeLast: number): string => (beforeLast ? `last − ${beforeLast}` : "last");

export class App {
  readonly store: Store;
  circuits: CircuitRecord[] = [];
  payload: Payload | null = null;
  other: Payload | null = null;
  trouble: string | null = null;
  /** The circuit that can be opened in place of the one in trouble. */
  instead: CircuitRecord | null = null;
  /** What is to be said above the picture. */
  notice: string | null = null;
  /** Whether nobody answers. */
  gone = false;
  /** Set once the server has another content than this page shows: nothing runs any more. */
  changed: string | null = null;
  curve: Curve | null = null;
  curveTrouble: string | null = null;
  readonly runs = new Runs(this);
  readonly steering = new Steering(this);
  hovered: string | null = null;
  /** Groups that are drawn because the circuit is large. */
  rest: Group[] = [];
  /** Parts of the picture that a sentence speaks of, while it is pointed at. */
  private meant: string[] = [];
  /** Where it was pointed at last: in a comparison of two models a name means a node of that one. */
  picked: Which = "left";
  /** What is searched for, and the nodes that it means. */
  query = "";
  found = new Set<string>();
  readonly stage: Stage;
  private otherStage: Stage | null = null;
  private details = new Map<string, NodeDetails | Promise<NodeDetails> | Refused>();
  private listeners: (() => void)[] = [];
  private saving = Promise.resolve();

  constructor(
    readonly source: Source,
    private readonly kept: Kept | null = null,
  ) {
    this.store = new Store(fromHash(location.hash || (kept?.hash ?? "")));
    this.stage = new Stage(
      byId("canvas"),
      {
        hover: (id, event) => this.hover(id, event, "left"),
        pick: (id, more) => this.pick(id, "left", more),
        moved: (zoom) => this.store.set({ zoom }),
      },
      "picture",
    );
    this.store.listen((state, before) => this.react(state, before));
    addEventListener("hashchange", () => {
      if (location.hash.slice(1) === toHash(this.state)) return;
      const wanted = fromHash(location.hash);
      this.store.set({ ...wanted, circuit: wanted.circuit || this.state.circuit });
    });
  }

  get state(): State {
    return this.store.state;
  }

  listen(listener: () => void): void {
    this.listeners.push(listener);
  }

  tell(): void {
    for (const listener of this.listeners) listener();
  }

  onHover: (id: string | null, event: PointerEvent | FocusEvent) => void = () => {};

  // ---------------------------------------------------------------- loading

  async start(): Promise<void> {
    try {
      this.circuits = await this.source.list();
      const first = this.circuits.find((record) => !record.problem) ?? this.circuits[0];
      if (!this.state.circuit && first) this.store.state = { ...this.state, circuit: first.id };
      this.writeHash();
      await this.open();
      if (this.state.compare !== null) await this.openOther();
    } catch (error) {
      this.trouble = this.failed(error);
      this.tell();
    }
  }

  /** Shows the state's circuit: what its file holds at once, and with the model when that is loaded. */
  async open(): Promise<void> {
    const id = this.state.circuit;
    this.forget();
    this.tell();
    if (!id) return;
    try {
      if (!this.has(id)) this.circuits = await this.source.list();
      if (!this.has(id)) {
        this.missing(id);
        return;
      }
      await this.take(await this.source.payload(id, true), id);
      if (this.payload?.live === null) await this.take(await this.source.payload(id, false), id);
    } catch (error) {
      if (id === this.state.circuit) this.trouble = this.failed(error);
      this.tell();
      return;
    }
    if (this.runs.needed) this.runs.ask(true);
    this.steering.ask();
    if (this.state.size !== null) void this.loadCurve();
    if (this.payload?.live && !this.payload.words) void this.loadWords(id);
  }

  /** What the nodes fire on, where no card said it: measured while the picture can be used already. */
  private async loadWords(id: string): Promise<void> {
    try {
      const { nodes } = await this.source.words(id);
      if (id === this.state.circuit && this.payload) this.payload = { ...this.payload, words: nodes };
      else if (id === this.state.compare && this.other) this.other = { ...this.other, words: nodes };
      else return;
      await this.redraw();
    } catch (error) {
      if (id === this.state.circuit || id === this.state.compare) this.failed(error); // the picture does without
    }
    this.tell();
  }

  /** Nothing of the circuit before is kept. */
  private forget(): void {
    this.runs.forget();
    this.steering.forget();
    this.payload = null;
    this.trouble = this.instead = this.notice = this.changed = null;
    this.curve = this.curveTrouble = null;
    this.hovered = null;
    this.details.clear();
    this.stage.clear();
  }

  private has(id: string): boolean {
    return this.circuits.some((record) => record.id === id);
  }

  /** The circuit of the same run and task, where there is one: its content is another. */
  private successor(id: string): CircuitRecord | null {
    const place = (of: string): string => of.replace(/\.[^.]*$/, "");
    const found = this.circuits.filter((record) => !record.problem && place(record.id) === place(id));
    return found.length === 1 ? found[0] : null;
  }

  private missing(id: string): void {
    this.instead = this.successor(id);
    this.trouble = this.instead
      ? "This circuit changed since the address was made. Nothing of the new one is shown under it."
      : "The address names a circuit that is not here: choose another one.";
    this.tell();
  }

  /** Opens the circuit as it is now. */
  async reload(): Promise<void> {
    const id = this.state.circuit;
    try {
      this.circuits = await this.source.list();
    } catch (error) {
      this.notice = this.failed(error);
      this.tell();
      return;
    }
    const next = this.has(id) ? id : this.successor(id)?.id;
    if (next === undefined) {
      this.payload = null;
      this.stage.clear();
      this.missing(id);
      return;
    }
    this.store.set(opening(next));
    if (next === id) await this.open();
  }

  /** The words of a failure; after one that says that the circuit is another now, nothing is asked any more. */
  failed(error: unknown): string {
    if (error instanceof Gone) this.waitForServer();
    if (error instanceof Changed) {
      this.changed = error.message;
      this.runs.running = false;
    }
    return (error as Error).message;
  }

  /** Asks until the server answers again, and goes on from there. */
  private waitForServer(): void {
    if (this.gone) return;
    this.gone = true;
    const again = async (): Promise<void> => {
      try {
        this.circuits = await this.source.list();
      } catch {
        setTimeout(() => void again(), RETRY);
        return;
      }
      this.gone = false;
      await this.goOn();
    };
    setTimeout(() => void again(), RETRY);
  }

  /** With the circuits that the server has now: what failed is asked again, if it has the one on show. */
  private async goOn(): Promise<void> {
    const id = this.state.circuit;
    if (!this.payload || !this.has(id)) {
      if (this.payload) this.changed = "The server is back with other circuits.";
      else await this.open();
      this.tell();
      return;
    }
    for (const [key, details] of this.details) if (details instanceof Gone) this.details.delete(key);
    this.curveTrouble = this.notice = null;
    if (this.payload.live === null) await this.take(await this.source.payload(id, false), id);
    if (this.runs.needed || this.runs.watched().length) this.runs.ask(true);
    this.steering.ask();
    if (this.state.compare !== null && !this.other) await this.openOther();
    this.tell();
  }

  private writeHash(): void {
    try {
      history.replaceState(null, "", `#${toHash(this.state)}`);
    } catch {
      /* a page inside a notebook has no address */
    }
  }

  private async take(payload: Payload, id: string): Promise<void> {
    if (id !== this.state.circuit) return;
    const first = this.payload === null;
    this.payload = payload;
    if (first) {
      const { groups = [], names = {} } = this.kept ?? payload.groups ?? {};
      this.store.state = { ...this.state, groups, names };
    }
    if (payload.groups_problem) this.notice = payload.groups_problem;
    this.tell(); // first what stands around the picture, which is laid out for the room that is left
    await this.draw(() => (first ? null : this.stage.view?.chosen) ?? this.state.zoom);
    this.tell();
  }

  async openOther(): Promise<void> {
    const id = this.state.compare;
    if (id === null) return;
    try {
      const other = await this.source.payload(id, false);
      if (id !== this.state.compare) return;
      this.other = other;
      this.otherStage ??= new Stage(
        byId("other-canvas"),
        {
          hover: (at, event) => this.hover(at, event, "right"),
          pick: (at, more) => this.pick(at, "right", more),
          moved: () => {},
        },
        "other-picture",
      );
      await this.draw();
      if (other.live && !other.words) void this.loadWords(id);
    } catch (error) {
      if (id !== this.state.compare) return;
      this.other = null;
      this.store.set({ compare: null });
      this.notice =
        error instanceof Changed ? "The circuit to compare with is not here, or it changed." : (error as Error).message;
    }
    this.tell();
  }

  // ---------------------------------------------------------------- the picture

  /** Nodes that the picture leaves out: hidden by hand, or of less importance than asked. */
  leftOut(): Set<string> {
    const { hidden, importance } = this.state;
    const out = new Set(hidden);
    if (importance > 0)
      for (const node of this.payload?.nodes ?? []) if ((node.importance ?? 0) < importance) out.add(node.name);
    return out;
  }

  /** The rest of each row of a large circuit, unless all is asked for. */
  private gathered(folded: Group[]): Group[] {
    if (this.state.whole || !this.payload) return [];
    const out = this.leftOut();
    const nodes = this.payload.nodes.filter((node) => !out.has(node.name));
    return restOf(nodes, worthOf(this.payload), new Set(folded.flatMap((group) => group.nodes)));
  }

  groupNamed(name: string): Group | null {
    return [...this.state.groups, ...this.rest].find((group) => group.name === name) ?? null;
  }

  /** Nodes that the size slider has dropped. */
  outside(): Set<string> {
    const { size } = this.state;
    return new Set(size !== null && this.curve ? this.curve.order.slice(size) : []);
  }

  /** The picture anew, where the user has moved it to. */
  redraw(): Promise<void> {
    return this.draw(() => this.stage.view?.chosen ?? null);
  }

  /** still: what is in the picture already stays where it is. */
  private async draw(zoom?: () => Place | null, still = false): Promise<void> {
    const { payload, other, otherStage } = this;
    if (!payload?.nodes.length) {
      this.stage.clear();
      this.tell();
      return;
    }
    const folded = this.state.groups.filter((group) => this.state.folded.includes(group.name));
    this.rest = this.state.compare === null ? this.gathered(folded) : [];
    const weights = graphOf(payload, folded, this.leftOut(), this.state.names, this.rest);
    const flow = flowOf(this);
    const graph = flow ? withFlow(weights, flow) : weights;
    const beside = this.state.compare !== null && other?.nodes.length ? graphOf(other, []) : null;
    const drawn = await this.stage.show(payload.title, graph, zoom, beside, still && !beside);
    const place = zoom && ((): Place | null => otherStage?.view?.chosen ?? null);
    if (drawn && beside && otherStage && (await otherStage.show(other!.title, beside, place, graph))) this.level();
    if (!drawn) return;
    if (this.hovered !== null && !this.hasPart(this.hovered)) this.hovered = null; // it is no longer drawn
    this.mark();
  }

  private hasPart(id: string): boolean {
    return Boolean(this.stageFor(id) ?? this.linkOf(id)) || id.startsWith("head:");
  }

  /** Both pictures of a comparison begin at one scale, so that their layers are level. */
  private level(): void {
    const views = this.stages.map((stage) => stage.view!);
    const scale = Math.min(...views.map((view) => view.beginning));
    for (const view of views) {
      view.cap = scale;
      if (!view.touched) view.begin();
    }
  }

  /** The pictures on show. */
  get stages(): Stage[] {
    return [this.stage, this.otherStage].filter((stage): stage is Stage => Boolean(stage?.drawing));
  }

  /** The picture that has a vertex: the left one, if both have. */
  stageFor(id: string): Stage | null {
    return this.stages.find((stage) => stage.layout?.vertices.has(id)) ?? null;
  }

  linkOf(id: string): Link | null {
    for (const stage of this.stages) {
      const found = stage.linkOf(id);
      if (found) return found;
    }
    return null;
  }

  shared(): Set<string> | undefined {
    if (!this.other || !this.payload || this.state.compare === null) return undefined;
    if (!sameModel(this)) return undefined;
    const names = new Set(this.other.nodes.map((node) => node.name));
    return new Set(this.payload.nodes.map((node) => node.name).filter((name) => names.has(name)));
  }

  mark(): void {
    const touched = new Map(
      this.state.touch.map((change) => [
        partOf(change),
        change.kind === "scale" ? `×${change.factor}` : SIGNS[change.kind],
      ]),
    );
    const marks = {
      selected: this.state.selected,
      lit: this.state.selected ? null : (together(this.meant) ?? this.hovered),
      touched,
      outside: this.outside(),
      shared: this.shared(),
      found: this.found,
      core: new Set(this.payload?.backups?.core),
    };
    if (this.state.compare === null || !this.other) {
      this.stage.mark(marks);
      return;
    }
    // A name in the other model is another node: only where it was pointed at.
    const of = (which: Which): Marks =>
      sameModel(this) || which === this.picked ? marks : { ...marks, selected: null, lit: null };
    this.stage.mark(of("left"));
    this.otherStage?.mark({ ...of("right"), outside: new Set(), core: new Set(this.other.backups?.core) });
  }

  /** Lights up what a sentence speaks of. */
  mean(parts: string[]): void {
    this.meant = parts;
    this.mark();
  }

  // ---------------------------------------------------------------- what is selected

  current(): string | null {
    return this.state.selected ?? this.hovered;
  }

  private hover(id: string | null, event: PointerEvent | FocusEvent, which: Which): void {
    this.onHover(id, event);
    if (id === this.hovered && (id === null || which === this.picked || this.state.selected !== null)) return;
    this.hovered = id;
    if (this.state.selected === null) this.picked = which;
    if (this.state.selected === null) {
      this.mark();
      this.tell();
    }
  }

  pick(id: string | null, which: Which = "left", more = false): void {
    const again = id === this.state.selected && which === this.picked;
    const selected = more && id !== null ? withOneMore(this.state.selected, id) : again ? null : id;
    if (selected === null) this.hovered = null;
    this.picked = which;
    this.store.set({ selected });
  }

  /** Selects, brings into view, and moves the keyboard's focus to the panel's title. */
  follow(id: string): void {
    this.store.set({ selected: id });
    for (const stage of this.stages) {
      const element = stage.elementOf(id);
      if (element) stage.view?.reveal(element);
    }
    byId("panel-title")?.focus();
  }

  node(name: string): CircuitNode | null {
    return nodeOf(this, name);
  }

  /** A node of the circuit, or any other node of the model. */
  anyNode(name: string): CircuitNode | null {
    return this.node(name) ?? parseNode(name, this.payload?.model?.d_head);
  }

  detailsOf(name: string): NodeDetails | Refused | null {
    const side = sideFor(this, name);
    if (!side) return null;
    const { payload, which } = side;
    const embedded = payload.details?.[name];
    if (embedded) return embedded;
    const id = which === "left" ? this.state.circuit : this.state.compare!;
    const key = `${which} ${id} ${name}`; // an answer about the circuit before may still be on its way
    const known = this.details.get(key);
    if (known instanceof Promise) return null;
    if (known) return known;
    if (payload.live === null) return null;
    if (!this.source.offline && !payload.live) return new Refused(payload.problem ?? "the model is not loaded");
    const asked = this.source.node(id, name);
    this.details.set(key, asked);
    asked
      .then(
        (details) => this.details.set(key, details),
        (error) => {
          if (id === this.state.circuit || id === this.state.compare) this.failed(error);
          this.details.set(key, error as Refused);
        },
      )
      .then(() => this.tell());
    return null;
  }

  // ---------------------------------------------------------------- touch

  /** Replaces or adds interventions, one undoable step. */
  touch(changes: Intervention[], label: string): void {
    const keys = new Set(changes.map(keyOf));
    this.store.do(label, { touch: [...this.state.touch.filter((change) => !keys.has(keyOf(change))), ...changes] });
  }

  untouch(keys: string[], label: string): void {
    this.store.do(label, { touch: this.state.touch.filter((change) => !keys.includes(keyOf(change))) });
  }

  async loadCurve(): Promise<void> {
    if (this.curve || this.curveTrouble !== null) return;
    const id = this.state.circuit;
    this.curveTrouble = "";
    this.tell();
    try {
      const curve = await this.source.curve(id);
      if (id !== this.state.circuit) return;
      this.curve = curve;
      this.curveTrouble = null;
    } catch (error) {
      if (id !== this.state.circuit) return;
      this.curveTrouble = this.failed(error);
    }
    this.mark();
    this.tell();
  }

  // ---------------------------------------------------------------- reaction to changes of state

  private react(state: State, before: State): void {
    const differs = (...keys: (keyof State)[]): boolean => keys.some((key) => state[key] !== before[key]);
    this.writeHash();
    if (
      differs("zoom") &&
      Object.keys(state).every((key) => key === "zoom" || state[key as keyof State] === before[key as keyof State])
    )
      return;
    hideTip();
    if (differs("circuit")) {
      this.store.past = [];
      this.store.future = [];
      void this.open();
      return;
    }
    if (differs("compare")) {
      this.other = null;
      this.otherStage?.clear();
      for (const key of [...this.details.keys()]) if (key.startsWith("right ")) this.details.delete(key);
      document.body.classList.toggle("comparing", state.compare !== null);
      if (state.compare !== null) void this.openOther();
      else void this.draw();
    }
    if (!this.payload) return;
    if (differs("hidden", "importance", "flow", "whole") || (state.flow && differs("pair", "prompt"))) void this.draw();
    else if (differs("groups", "folded", "names") || (state.flow && differs("touch", "scope", "size")))
      void this.draw(undefined, true);
    if (differs("groups", "names") && before.circuit === state.circuit) this.saveGroups();
    if (differs("touch", "prompt", "patch", "scope", "size", "pair")) {
      this.runs.ask(true);
    } else if (
      differs("selected") &&
      (this.runs.watched().length || state.selected?.startsWith("head:")) &&
      (this.runs.needed || this.runs.watched().length)
    )
      this.runs.ask(false);
    if (differs("size") && state.size !== null) void this.loadCurve();
    if (differs("drawer", "steer", "selected", "pair", "prompt", "patch")) this.steering.ask();
    this.mark();
    this.tell();
  }

  private saveGroups(): void {
    const { groups, names } = this.state;
    const saved = this.payload?.groups;
    if (saved && saved.groups === groups && saved.names === names) return;
    if (JSON.stringify([saved?.groups ?? [], saved?.names ?? {}]) === JSON.stringify([groups, names])) return;
    const next = { schema_version: 1, circuit: null, groups, names };
    if (this.payload) this.payload.groups = next;
    const id = this.state.circuit;
    this.saving = this.saving
      .then(() => this.source.saveGroups(id, next)) // one after the other: the last to arrive is the one that stays
      .catch((error) => {
        if (id !== this.state.circuit) return;
        this.notice = this.failed(error);
        this.tell();
      });
  }
}

/** What of a payload the layout needs, without what is left out. */
export function graphOf(
  payload: Payload,
  groups: Group[],
  out = new Set<string>(),
  names: Record<string, string> = {},
  rest: Group[] = [],
): Graph {
  const kept = (name: string): boolean => !out.has(name);
  return {
    nodes: payload.nodes.filter((node) => kept(node.name)).map(({ activations: _unused, ...node }) => node),
    edges: payload.edges.filter((edge) => kept(edge.source) && kept(edge.target)),
    residual: (payload.residual ?? []).filter((link) => kept(link.source) && kept(link.target)),
    embedding: (payload.embedding ?? []).filter((entry) => kept(entry.target) && isNumber(entry.weight)),
    logits: (payload.logits ?? []).filter((entry) => kept(entry.source)),
    answers: payload.answers,
    groups,
    rest: rest.map((group) => ({ group, label: restLabel(group) })),
    names,
    captions: captionsOf(payload, names),
    looks: looksByHead(payload),
    prompt: null,
  };
}
