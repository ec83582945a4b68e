// Pan, zoom and fit. While a hand moves, the drawn picture is moved as one layer, which costs no redrawing; when
// it rests, it is drawn anew at its size.
import { select } from "d3-selection";
import { type D3ZoomEvent, type ZoomBehavior, zoom, zoomIdentity, zoomTransform } from "d3-zoom";
import { Beyond } from "./beyond";
import type { Layout } from "./layout/graph";

const REST = 140; // ms
export const CLICK = 4; // pixels that a hand may move in a click
const MARGIN = 24; // of the drawing around the placed things
const TOOLS = 46; // pixels at the right that are the zoom buttons'

export class View {
  private readonly behaviour: ZoomBehavior<HTMLElement, unknown>;
  private drawnAt = 1;
  private resting = 0;
  private readonly beyond: Beyond;
  private readonly watcher = new ResizeObserver(() => {
    if (!this.touched) this.begin();
  });
  /** The largest scale to begin at: pictures side by side begin at the same. */
  cap = 1.6;
  touched = false;

  constructor(
    private readonly box: HTMLElement,
    private readonly layer: HTMLElement,
    private readonly picture: SVGSVGElement,
    private readonly layout: Layout,
    private readonly moved: (at: [number, number, number] | null) => void,
  ) {
    this.beyond = new Beyond(box, (dx, dy) => this.moveBy(dx, dy));
    const { width, height, gutter } = layout;
    picture.setAttribute(
      "viewBox",
      [-gutter - MARGIN, -MARGIN, width + gutter + 2 * MARGIN, height + 2 * MARGIN].join(" "),
    );
    this.behaviour = zoom<HTMLElement, unknown>()
      .scaleExtent([0.02, 8])
      .clickDistance(CLICK)
      .filter(
        (event) => !event.button && !(event.target as Element).closest("button, input, select") && !this.scrolls(event),
      )
      .on("zoom", (event: D3ZoomEvent<HTMLElement, unknown>) => {
        if (event.sourceEvent) this.touched = true;
        this.apply();
      });
    select(box).call(this.behaviour).on("dblclick.zoom", null);
    box.addEventListener("wheel", this.onWheel, { passive: false });
    box.addEventListener("scroll", this.onScroll);
    this.watcher.observe(box);
  }

  private get now(): { x: number; y: number; k: number } {
    return zoomTransform(this.box);
  }

  /** Stops listening, so that another picture can take this one's place. */
  close(): void {
    select(this.box).on(".zoom", null);
    this.box.removeEventListener("wheel", this.onWheel);
    this.box.removeEventListener("scroll", this.onScroll);
    clearTimeout(this.resting);
    this.watcher.disconnect();
    this.beyond.close();
  }

  /** Where the user has moved the picture to; null while it is fitted. */
  get chosen(): [number, number, number] | null {
    const { x, y, k } = this.now;
    return this.touched ? [x, y, k] : null;
  }

  private apply(): void {
    const { x, y, k } = this.now;
    this.layer.style.transform = `translate(${x}px, ${y}px) scale(${k / this.drawnAt})`;
    const [margin, { clientWidth, clientHeight }] = [MARGIN * k, this.box];
    const [width, height] = this.extent.map((length) => length * k);
    this.beyond.show(x + margin, y + margin, x + width - margin, y + height - margin, clientWidth, clientHeight);
    clearTimeout(this.resting);
    this.resting = window.setTimeout(() => this.rest(), REST);
  }

  private rest(): void {
    const { x, y, k } = this.now;
    this.draw(k);
    this.layer.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px) scale(1)`; // whole pixels
    if (this.touched) this.moved([x, y, k]);
  }

  private draw(k: number): void {
    if (k === this.drawnAt && this.picture.hasAttribute("width")) return;
    const [, , width, height] = this.picture.getAttribute("viewBox")!.split(" ").map(Number);
    this.picture.setAttribute("width", (width * k).toFixed(2));
    this.picture.setAttribute("height", (height * k).toFixed(2));
    this.drawnAt = k;
  }

  /** Whether a turn of the wheel moves the picture: where it is higher than the window. With Ctrl it zooms. */
  private scrolls(event: Event): event is WheelEvent {
    return event instanceof WheelEvent && !event.ctrlKey && this.extent[1] * this.now.k > this.box.clientHeight;
  }

  private readonly onWheel = (event: WheelEvent): void => {
    if (!this.scrolls(event)) return;
    event.preventDefault();
    const step = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 18 : 1;
    this.moveBy(-step * event.deltaX, -step * event.deltaY);
  };

  /** The browser scrolls to what has the focus, or is asked for by a screen reader: here the picture moves instead. */
  private readonly onScroll = (): void => {
    const { scrollLeft, scrollTop } = this.box;
    if (!scrollLeft && !scrollTop) return;
    this.box.scrollTo(0, 0);
    this.moveBy(-scrollLeft, -scrollTop);
  };

  /** Moves the picture by so many pixels. */
  private moveBy(dx: number, dy: number): void {
    const { k } = this.now;
    this.touched = true;
    select(this.box).call(this.behaviour.translateBy, dx / k, dy / k);
  }

  /** Width and height of the whole at scale 1. */
  private get extent(): [number, number] {
    const { width, height, gutter } = this.layout;
    return [width + gutter + 2 * MARGIN, height + 2 * MARGIN];
  }

  /** The scale at which everything is inside the window, beside the buttons. */
  private get whole(): number {
    const [w, h] = this.extent;
    return Math.min(this.cap, (this.box.clientWidth - TOOLS) / w, (this.box.clientHeight - 4) / h);
  }

  /** The scale to begin at: everything, but no smaller than can be read. */
  get beginning(): number {
    return Math.min(this.cap, Math.max(this.whole, this.layout.least));
  }

  begin(): void {
    this.centre(this.beginning);
  }

  fit(): void {
    this.centre(this.whole);
    const { x, y, k } = this.now;
    this.moved(this.whole === this.beginning ? null : [x, y, k]); // a link shows it like this
  }

  /** In the middle; what does not fit begins at its top, and at its left if the answers are in sight there. */
  private centre(k: number): void {
    const { clientWidth, clientHeight: height } = this.box;
    const width = clientWidth - TOOLS;
    if (!clientWidth || !height) return;
    const [w, h] = this.extent;
    const answers = Math.max(...this.layout.bands.at(-1)!.items.map((item) => item.x + item.w / 2));
    const far = this.layout.gutter + 2 * MARGIN + answers;
    const x = w * k <= width ? (width - w * k) / 2 : Math.min(0, Math.max(width - w * k, width - far * k));
    this.place([x, Math.max(0, (height - h * k) / 2), k]);
    this.touched = false;
  }

  place([x, y, k]: [number, number, number]): void {
    this.draw(k);
    this.touched = true;
    select(this.box).call(this.behaviour.transform, zoomIdentity.translate(x, y).scale(k));
  }

  /** As another picture in the same window stands, be it by hand or not. */
  placeAs(other: View): void {
    const { touched, cap } = other;
    this.cap = cap;
    const { x, y, k } = zoomTransform(this.box);
    this.place([x, y, k]);
    this.touched = touched;
  }

  zoom(factor: number): void {
    this.touched = true;
    select(this.box).call(this.behaviour.scaleBy, factor);
  }

  /** Moves the picture just enough for an element to be inside the window. */
  reveal(element: Element): void {
    const box = this.box.getBoundingClientRect();
    const own = element.getBoundingClientRect();
    const over = (low: number, high: number, from: number, to: number): number =>
      low < from + 8 ? from + 8 - low : high > to - 8 ? to - 8 - high : 0;
    const [dx, dy] = [over(own.left, own.right, box.left, box.right), over(own.top, own.bottom, box.top, box.bottom)];
    if (dx || dy) this.moveBy(dx, dy);
  }
}
