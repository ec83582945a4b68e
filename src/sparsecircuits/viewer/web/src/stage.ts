// One picture in its frame: placed, drawn, walked by keyboard, and marked.
import { type Drawing, drawGraph, headItems } from "./draw";
import { html, svg } from "./dom";
import type { Graph, Layout, Link, Stood, Vertex } from "./layout/graph";
import { stoodOf } from "./layout/index";
import { placeAside } from "./layout/place-aside";
import { partsOf } from "./selection";
import { CLICK, View } from "./view";

const MOST_DIMMED = 1500; // links; of more only the lit ones are raised, for dimming all the rest takes long

export interface Marks {
  selected: string | null;
  lit: string | null;
  touched: Map<string, string>;
  outside: Set<string>;
  shared?: Set<string>;
  found?: Set<string>;
  /** Nodes that nothing was found to replace. */
  core?: Set<string>;
}
/** Where a picture stands: x, y and scale. */
export type Place = [number, number, number];
export interface StageEvents {
  hover(id: string | null, event: PointerEvent | FocusEvent): void;
  /** more: beside what is selected already. */
  pick(id: string | null, more: boolean): void;
  moved(at: Place | null): void;
}

/** What an element of the picture stands for, in the words of the state's `selected`. */
function idOf(target: EventTarget | null, drawing: Drawing): string | null {
  if (!(target instanceof Element)) return null;
  const vertex = target.closest<SVGGElement>(".vertex");
  if (vertex) return vertex.dataset.id!;
  const link = target.closest<SVGGElement>(".link");
  if (link)
    for (const [known, element] of drawing.links)
      if (element === link) return known.kind === "edge" ? `edge:${known.name}` : `link:${known.name}`;
  const head = target.closest<SVGGElement>("[data-head]");
  return head ? `head:${head.dataset.head}` : null;
}

/** Says on a vertex what is done to it. */
function setBadge(element: SVGGElement, vertex: Vertex, sign: string | undefined): void {
  if (element.dataset.touch === sign) return;
  element.querySelector(".badge")?.remove();
  if (sign === undefined) {
    delete element.dataset.touch;
    return;
  }
  element.dataset.touch = sign;
  const width = 10 + 7.5 * sign.length;
  element.append(
    svg(
      "g",
      { class: "badge", transform: `translate(${vertex.w / 2 - 2} ${-vertex.h / 2})` },
      svg("rect", { class: "badge-shape", x: -width / 2, y: -9, width, height: 18, rx: 9 }),
      svg("text", { class: "badge-text", y: 4, "text-anchor": "middle" }, sign),
    ),
  );
}

export class Stage {
  layout: Layout | null = null;
  drawing: Drawing | null = null;
  view: View | null = null;
  private links = new Map<string, Link[]>();
  private lit: Element[] = [];
  private hovered: string | null = null;
  private pressed: { id: string | null; drawing: Drawing | null; x: number; y: number } | null = null;
  private layer = html("div", { class: "layer" });
  private turn = 0;
  /** Where all stood when the picture was last laid out anew: what a group hides comes back there. */
  private stood: Stood | null = null;

  constructor(
    readonly box: HTMLElement,
    private readonly events: StageEvents,
    private readonly id: string,
  ) {
    box.append(this.layer);
    box.addEventListener("pointermove", (event) => this.onPointer(event));
    box.addEventListener("pointerleave", (event) => {
      this.hovered = null;
      this.events.hover(null, event);
    });
    box.addEventListener("pointerdown", ({ target, clientX, clientY }) => {
      this.pressed = { id: this.idOf(target), drawing: this.drawing, x: clientX, y: clientY };
    });
    box.addEventListener("pointerup", (event) => this.onRelease(event));
    box.addEventListener("click", (event) => {
      if (this.drawing && !(event.target as Element).closest("button"))
        this.events.pick(this.idOf(event.target), event.shiftKey);
    });
    box.addEventListener("focusin", (event) => {
      const id = this.idOf(event.target);
      if (id) this.events.hover(id, event);
    });
    box.addEventListener("keydown", (event) => this.onKey(event));
  }

  private idOf(target: EventTarget | null): string | null {
    return this.drawing ? idOf(target, this.drawing) : null;
  }

  /** A press on a picture that was drawn anew before the button came up makes no click, but is meant as one. */
  private onRelease({ clientX, clientY, shiftKey }: PointerEvent): void {
    const { pressed, drawing } = this;
    this.pressed = null;
    if (!pressed?.drawing || !drawing || pressed.drawing === drawing || pressed.id === null) return;
    if (Math.hypot(clientX - pressed.x, clientY - pressed.y) <= CLICK) this.events.pick(pressed.id, shiftKey);
  }

  private onPointer(event: PointerEvent): void {
    if (event.buttons) return;
    const id = this.idOf(event.target);
    if (id === this.hovered && !id?.match(/^(edge|link):/)) return;
    this.hovered = id;
    this.events.hover(id, event);
  }

  /**
   * Replaces the picture, placed where `zoom` says once the new one is laid out: the user may have moved the old one
   * until then. Without, it begins where it can be read. still: what is in both pictures stays where it is on the
   * screen. Resolves to false if a later one overtook it.
   */
  async show(
    title: string,
    graph: Graph,
    zoom: () => Place | null = () => null,
    beside: Graph | null = null,
    still = false,
  ): Promise<boolean> {
    const turn = ++this.turn;
    const stood = still && this.layout ? this.stood : null;
    const { width, height } = this.box.getBoundingClientRect();
    const layout = await placeAside(
      graph,
      { width: Math.max(320, width - 46), height: Math.max(240, height - 42) },
      beside,
      stood,
    );
    if (turn !== this.turn) return false;
    const [at, was] = [zoom(), stood && this.view];
    this.view?.close();
    this.layout = layout;
    if (!stood) this.stood = stoodOf(layout);
    this.drawing = drawGraph(title, layout, graph.nodes.length);
    this.drawing.picture.id = this.id;
    this.links = new Map();
    for (const link of layout.links)
      for (const end of [link.source, link.target]) this.links.set(end, [...(this.links.get(end) ?? []), link]);
    this.lit = [];
    this.layer.replaceChildren(this.drawing.picture);
    this.view = new View(this.box, this.layer, this.drawing.picture, layout, (at) => this.events.moved(at));
    if (was) this.view.placeAs(was);
    else if (at) this.view.place(at);
    else this.view.begin();
    this.firstStop()?.setAttribute("tabindex", "0");
    return true;
  }

  clear(): void {
    this.turn++;
    this.view?.close();
    this.layer.replaceChildren();
    this.layout = null;
    this.drawing = null;
    this.view = null;
  }

  neighbours(id: string): { incoming: Link[]; outgoing: Link[] } {
    const links = this.links.get(id) ?? [];
    return {
      incoming: links.filter((link) => link.target === id),
      outgoing: links.filter((link) => link.source === id),
    };
  }

  /** The vertex that a node is drawn as: itself, or the group that it is folded into. */
  vertexOf(id: string): Vertex | null {
    const { vertices } = this.layout ?? { vertices: new Map<string, Vertex>() };
    return vertices.get(id) ?? [...vertices.values()].find((v) => v.group?.nodes.includes(id)) ?? null;
  }

  linkOf(id: string): Link | null {
    const name = id.replace(/^(edge|link):/, "");
    return this.layout?.links.find((link) => link.name === name) ?? null;
  }

  elementOf(id: string): SVGGElement | null {
    if (id.startsWith("head:")) return this.drawing?.heads.get(id.slice(5))?.frame ?? null;
    const vertex = this.vertexOf(id);
    return vertex ? this.drawing!.vertices.get(vertex.id)! : null;
  }

  // ---------------------------------------------------------------- marks

  mark(marks: Marks): void {
    const { drawing, layout } = this;
    if (!drawing || !layout) return;
    for (const element of this.lit) element.classList.remove("lit", "chosen");
    this.lit = [];
    for (const part of partsOf(marks.lit ?? marks.selected)) this.light(part);
    for (const [id, element] of drawing.vertices) {
      const vertex = layout.vertices.get(id)!;
      const members = vertex.group ? vertex.group.nodes : [id];
      const classes = element.classList;
      classes.toggle(
        "outside",
        vertex.kind !== "token" && vertex.kind !== "answer" && members.every((name) => marks.outside.has(name)),
      );
      classes.toggle("core", marks.core !== undefined && members.some((name) => marks.core!.has(name)));
      classes.toggle("shared", marks.shared !== undefined && members.some((name) => marks.shared!.has(name)));
      classes.toggle(
        "own",
        marks.shared !== undefined &&
          Boolean(vertex.node ?? vertex.group) &&
          !members.some((name) => marks.shared!.has(name)),
      );
      classes.toggle("found", Boolean(marks.found && members.some((name) => marks.found!.has(name))));
      const sign = members.map((name) => marks.touched.get(name)).find(Boolean);
      setBadge(element, vertex, sign);
    }
    for (const [link, element] of drawing.links) {
      const sign = link.members.map((name) => marks.touched.get(name)).find(Boolean);
      if (sign) element.dataset.touch = sign;
      else if (element.dataset.touch) delete element.dataset.touch;
      element.classList.toggle("outside", marks.outside.has(link.source) || marks.outside.has(link.target));
    }
    drawing.world.classList.toggle("focus", Boolean(marks.lit ?? marks.selected) && layout.links.length <= MOST_DIMMED);
  }

  private light(id: string): void {
    if (!this.drawing || !this.layout) return;
    const add = (element: Element | null | undefined, name = "lit"): void => {
      if (element) {
        element.classList.add(name);
        this.lit.push(element);
      }
    };
    const near = (name: string): void => add(this.drawing!.vertices.get(name));
    const head = id.startsWith("head:") ? this.drawing.heads.get(id.slice(5)) : null;
    const link = /^(edge|link):/.test(id) ? this.linkOf(id) : null;
    const vertex = head || link ? null : this.vertexOf(id);
    if (link) {
      add(this.drawing.links.get(link));
      add(this.drawing.links.get(link), "chosen");
      near(link.source);
      near(link.target);
    }
    if (head) {
      add(head.frame);
      add(head.frame, "chosen");
    }
    if (vertex) {
      near(vertex.id);
      add(this.drawing.vertices.get(vertex.id), "chosen");
    }
    if (vertex && /[qk]/.test(vertex.letter)) vertex.item.vertices.forEach((v) => near(v.id));
    for (const own of head ? head.item.vertices : vertex ? [vertex] : []) {
      near(own.id);
      for (const each of this.links.get(own.id) ?? []) {
        add(this.drawing.links.get(each));
        near(each.source);
        near(each.target);
      }
    }
    for (const { frame, gate, item } of this.drawing.heads.values()) {
      if (!item.vertices.some((v) => this.drawing!.vertices.get(v.id)!.classList.contains("lit"))) continue;
      add(frame);
      add(gate);
    }
  }

  // ---------------------------------------------------------------- keyboard: one tab stop, arrows to the nearest

  private stops(): { element: SVGGElement; x: number; y: number }[] {
    if (!this.layout || !this.drawing) return [];
    return [
      ...[...this.layout.vertices.values()].map((v) => ({
        element: this.drawing!.vertices.get(v.id)!,
        x: v.item.x + v.dx,
        y: v.y,
      })),
      ...headItems(this.layout).map((head) => ({
        element: this.drawing!.heads.get(`${head.layer}.${head.head}`)!.frame,
        x: head.x - head.w / 2,
        y: head.bottom! - head.h! + 18,
      })),
    ];
  }

  private firstStop(): SVGGElement | undefined {
    const stops = this.stops();
    if (!stops.length) return undefined;
    return stops.reduce((low, stop) => (stop.y > low.y || (stop.y === low.y && stop.x < low.x) ? stop : low)).element;
  }

  focus(element: SVGGElement): void {
    for (const old of this.layer.querySelectorAll('[tabindex="0"]')) old.setAttribute("tabindex", "-1");
    element.setAttribute("tabindex", "0");
    element.focus({ preventScroll: true });
    this.view?.reveal(element);
  }

  private onKey(event: KeyboardEvent): void {
    const element = (event.target as Element).closest<SVGGElement>('[role="button"]');
    if (!element || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.events.pick(this.idOf(element), event.shiftKey);
      return;
    }
    const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const up = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!side && !up) return;
    event.preventDefault();
    const stops = this.stops();
    const here = stops.find((stop) => stop.element === element);
    if (!here) return;
    const others = stops.filter((s) =>
      side ? Math.abs(s.y - here.y) < 3 && (s.x - here.x) * side > 0 : (s.y - here.y) * up! > 3,
    );
    const far = (s: { x: number; y: number }): number =>
      side ? Math.abs(s.x - here.x) : Math.abs(s.y - here.y) * 1000 + Math.abs(s.x - here.x);
    if (others.length) this.focus(others.reduce((best, s) => (far(s) < far(best) ? s : best)).element);
  }
}
