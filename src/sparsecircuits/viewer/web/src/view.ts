// Pan, zoom and fit. While a hand moves, the drawn picture is moved as one layer, which costs no redrawing; when
// it rests, it is drawn anew at its size.
import { select } from "d3-selection";
import { type D3ZoomEvent, type ZoomBehavior, zoom, zoomIdentity, zoomTransform } from "d3-zoom";
import type { Layout } from "./layout/graph";

const REST = 140; // ms
export const MARGIN = 24; // of the drawing around the placed things

export class View {
  private readonly behaviour: ZoomBehavior<HTMLElement, unknown>;
  private drawnAt = 1;
  private resting = 0;
  private readonly watcher = new ResizeObserver(() => { if (!this.touched) this.fit(); });
  touched = false;

  constructor(
    private readonly box: HTMLElement,
    private readonly layer: HTMLElement,
    private readonly picture: SVGSVGElement,
    private readonly layout: Layout,
    private readonly moved: (at: [number, number, number]) => void,
  ) {
    const { width, height, gutter } = layout;
    picture.setAttribute("viewBox", [-gutter - MARGIN, -MARGIN, width + gutter + 2 * MARGIN, height + 2 * MARGIN].join(" "));
    this.behaviour = zoom<HTMLElement, unknown>().scaleExtent([0.02, 8]).clickDistance(4)
      .filter((event) => !event.button && !(event.target as Element).closest("button, input, select"))
      .on("zoom", (event: D3ZoomEvent<HTMLElement, unknown>) => { if (event.sourceEvent) this.touched = true; this.apply(); });
    select(box).call(this.behaviour).on("dblclick.zoom", null);
    box.addEventListener("scroll", () => box.scrollTo(0, 0)); // focus must not scroll what zoom places
    this.watcher.observe(box);
  }

  private get now(): { x: number; y: number; k: number } { return zoomTransform(this.box); }

  /** Stops listening, so that another picture can take this one's place. */
  close(): void { select(this.box).on(".zoom", null); clearTimeout(this.resting); this.watcher.disconnect(); }

  /** Where the user has moved the picture to; null while it is fitted. */
  get chosen(): [number, number, number] | null {
    const { x, y, k } = this.now;
    return this.touched ? [x, y, k] : null;
  }

  private apply(): void {
    const { x, y, k } = this.now;
    this.layer.style.transform = `translate(${x}px, ${y}px) scale(${k / this.drawnAt})`;
    clearTimeout(this.resting);
    this.resting = window.setTimeout(() => this.rest(), REST);
  }

  private rest(): void {
    const { x, y, k } = this.now;
    this.draw(k);
    this.layer.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px) scale(1)`; // whole pixels: sharp text
    if (this.touched) this.moved([x, y, k]);
  }

  private draw(k: number): void {
    if (k === this.drawnAt && this.picture.hasAttribute("width")) return;
    const [, , width, height] = this.picture.getAttribute("viewBox")!.split(" ").map(Number);
    this.picture.setAttribute("width", (width * k).toFixed(2));
    this.picture.setAttribute("height", (height * k).toFixed(2));
    this.drawnAt = k;
  }

  fit(): void {
    const { width, height } = this.box.getBoundingClientRect();
    if (!width || !height) return;
    const [w, h] = [this.layout.width + this.layout.gutter + 2 * MARGIN, this.layout.height + 2 * MARGIN];
    const k = Math.min(1.6, (width - 8) / w, (height - 4) / h);
    this.place([(width - w * k) / 2, (height - h * k) / 2, k]);
    this.touched = false;
  }

  place([x, y, k]: [number, number, number]): void {
    this.draw(k);
    this.touched = true;
    select(this.box).call(this.behaviour.transform, zoomIdentity.translate(x, y).scale(k));
  }

  zoom(factor: number): void {
    this.touched = true;
    select(this.box).call(this.behaviour.scaleBy, factor);
  }

  /** Moves the picture just enough for an element to be inside the window. */
  reveal(element: Element): void {
    const box = this.box.getBoundingClientRect();
    const own = element.getBoundingClientRect();
    const over = (low: number, high: number, from: number, to: number): number => (low < from + 8 ? from + 8 - low : high > to - 8 ? to - 8 - high : 0);
    const [dx, dy] = [over(own.left, own.right, box.left, box.right), over(own.top, own.bottom, box.top, box.bottom)];
    if (!dx && !dy) return;
    const { k } = this.now;
    this.touched = true;
    select(this.box).call(this.behaviour.translateBy, dx / k, dy / k);
  }
}
