// Pan, zoom and fit; arrow keys from node to node.

class View {
  constructor(picture, world, layout) {
    Object.assign(this, { picture, world, layout, x: 0, y: 0, k: 1, touched: false, moved: false });
    this.pointers = new Map();
    picture.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    picture.addEventListener("pointerdown", (event) => this.onDown(event));
    picture.addEventListener("pointermove", (event) => this.onMove(event));
    picture.addEventListener("dblclick", (event) => this.zoom(event.shiftKey ? 0.5 : 2, event));
    for (const name of ["pointerup", "pointercancel"]) picture.addEventListener(name, (event) => this.onUp(event));
    new ResizeObserver(() => { if (!this.touched) this.fit(); }).observe(picture);
  }

  apply() {
    this.world.setAttribute("transform", `translate(${this.x.toFixed(2)} ${this.y.toFixed(2)}) scale(${this.k.toFixed(4)})`);
  }

  fit() {
    const { width, height } = this.picture.getBoundingClientRect();
    if (!width || !height) return;
    const { layout } = this;
    const [w, h] = [layout.width + layout.gutter + 16, layout.height + 22];
    this.k = Math.min(1.6, (width - 28) / w, (height - 20) / h);
    this.x = (width - w * this.k) / 2 + layout.gutter * this.k;
    this.y = (height - h * this.k) / 2 + 11 * this.k;
    this.touched = false;
    this.apply();
  }

  zoom(factor, at) {
    const box = this.picture.getBoundingClientRect();
    const [x, y] = at ? [at.clientX - box.left, at.clientY - box.top] : [box.width / 2, box.height / 2];
    const k = Math.min(6, Math.max(0.08, this.k * factor));
    this.x = x - (x - this.x) * (k / this.k);
    this.y = y - (y - this.y) * (k / this.k);
    this.k = k;
    this.touched = true;
    this.apply();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.touched = true;
    this.apply();
  }

  onWheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.zoom(Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) * 0.0022), event);
  }

  onDown(event) {
    if (event.button !== 0) return;
    if (this.pointers.size === 0) this.moved = false;
    this.pointers.set(event.pointerId, { clientX: event.clientX, clientY: event.clientY });
  }

  onMove(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
    if (!this.moved && Math.hypot(dx, dy) < 4) return;
    if (!this.moved) this.picture.setPointerCapture(event.pointerId);
    this.moved = true;
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    if (other) {
      const reach = (point) => Math.hypot(point.clientX - other.clientX, point.clientY - other.clientY);
      this.zoom(reach(event) / Math.max(1, reach(last)), other);
    } else this.pan(dx, dy);
    last.clientX = event.clientX;
    last.clientY = event.clientY;
  }

  onUp(event) {
    this.pointers.delete(event.pointerId);
  }

  /** Moves the picture just enough for an element to be inside the window. */
  reveal(element) {
    const box = this.picture.getBoundingClientRect();
    const own = element.getBoundingClientRect();
    const over = (low, high, from, to) => (low < from + 8 ? from + 8 - low : high > to - 8 ? to - 8 - high : 0);
    const [dx, dy] = [over(own.left, own.right, box.left, box.right), over(own.top, own.bottom, box.top, box.bottom)];
    if (dx || dy) this.pan(dx, dy);
  }
}

/** One tab stop for the whole picture; arrows go to the nearest stop in that direction. */
class Walker {
  constructor(layout, view) {
    this.view = view;
    const stop = (element, x, y, row) => ({ element, x, y, row });
    this.stops = [
      ...[...layout.vertices.values()].map((v) => stop(v.element, v.item.x + v.dx, v.y, v.y)),
      ...headItems(layout).map((head) => stop(head.element, head.x - head.w / 2, head.band.top + 18, head.band.top + 18)),
    ];
    const first = this.stops.reduce((low, s) => (!low || s.row > low.row || (s.row === low.row && s.x < low.x) ? s : low), null);
    first?.element.setAttribute("tabindex", 0);
    for (const s of this.stops) {
      s.element.addEventListener("focus", () => this.onFocus(s));
      s.element.addEventListener("keydown", (event) => this.onKey(event, s));
    }
  }

  onFocus(here) {
    for (const s of this.stops) s.element.setAttribute("tabindex", s === here ? 0 : -1);
    if (here.element.matches(":focus-visible")) this.view.reveal(here.element);
  }

  onKey(event, here) {
    const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const up = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if ((!side && !up) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const others = this.stops.filter((s) => (side ? Math.abs(s.row - here.row) < 3 && (s.x - here.x) * side > 0 : (s.row - here.row) * up > 3));
    const far = (s) => (side ? Math.abs(s.x - here.x) : Math.abs(s.row - here.row) * 1000 + Math.abs(s.x - here.x));
    others.reduce((best, s) => (!best || far(s) < far(best) ? s : best), null)?.element.focus();
  }
}
