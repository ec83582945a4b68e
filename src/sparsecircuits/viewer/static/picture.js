// Puts the page together: header, picture, prompts, details, and what happens on pointer and keys.

function showHeader(payload) {
  const { summary = {}, model = {} } = payload;
  const put = (id, text) => { document.getElementById(id).textContent = text; };
  document.title = `${payload.title}: circuit picture`;
  put("eyebrow", [payload.title, model.name ? `model ${model.name}` : null, isNumber(model.n_layer) ? plural(model.n_layer, "layer") : null].filter(Boolean).join(" · "));
  put("description", payload.description || payload.task || payload.title);
  document.getElementById("description").classList.toggle("long", (payload.description ?? "").length > 72);
  const losses = [summary.loss, summary.loss_full, Math.LN2, summary.loss_ablated].filter(isNumber);
  const most = Math.max(...losses, 0.001);
  const stat = (value, name, note, loss) => {
    const bar = html("i", { class: "stat-bar" });
    if (isNumber(loss)) bar.style.setProperty("--size", `${Math.max(2, (100 * loss) / most)}%`);
    return html("div", { class: `stat${loss === undefined ? "" : " loss"}` },
      html("dt", {}, name), html("dd", {}, html("b", {}, value), loss === undefined ? null : bar, html("span", {}, note)));
  };
  const nodes = summary.n_nodes ?? payload.nodes.length;
  const edges = summary.n_edges ?? payload.edges.length;
  document.getElementById("stats").replaceChildren(
    stat(count(nodes), nodes === 1 ? "node" : "nodes", "kept in the circuit"),
    stat(count(edges), edges === 1 ? "edge" : "edges", isNumber(model.nonzeros) ? `of ${count(model.nonzeros)} weights` : "weights between them"),
    stat(plain(summary.loss), "loss, circuit alone", isNumber(summary.target_loss) ? `target ${plain(summary.target_loss)}` : "lower is better", summary.loss ?? null),
    stat(plain(summary.loss_full), "whole model", "nothing removed", summary.loss_full ?? null),
    stat(plain(Math.LN2), "coin flip", isNumber(summary.loss_empty) ? `empty circuit ${plain(summary.loss_empty)}` : "chance, ln 2", Math.LN2),
    stat(plain(summary.loss_ablated), "circuit removed", isNumber(summary.loss_ablated) ? "all the rest kept" : "not measured", summary.loss_ablated ?? null));
}

function showAbout(payload) {
  const { summary = {} } = payload;
  const held = { zero: "set to zero", resample: "given its value on another prompt" }[summary.ablation] ?? "frozen at its average value";
  const lines = [
    "A small language model was trained so that almost all of its weights are zero. This is the part of it that does one task.",
    "Read from the bottom up: tokens come in, each layer reads channels of the residual stream, computes, and writes back; the answers are scored at the top.",
    `Boxes are single neurons and channels. Every other neuron and channel was ${held}; the loss of the circuit alone says how well the task is done with only these.`,
    "A line is one weight: blue adds, orange subtracts, thicker is larger. Dashed grey lines only carry a channel from where it is written to where it is read.",
    `Loss is how surprised the model is by the right answer of the two: 0 is certain and right, ${plain(Math.LN2)} a coin flip.${isNumber(summary.n_prompts) ? ` Measured on ${count(summary.n_prompts)} ${summary.split ?? ""} prompts.` : ""}`,
  ];
  document.getElementById("about-text").replaceChildren(...lines.map((line) => html("p", {}, line)));
}

function showLegend() {
  const line = (name) => svg("svg", { class: "swatch", width: 30, height: 12, "aria-hidden": "true" },
    svg("path", { class: `line key-${name}`, d: "M1 6H29" }));
  const box = (kind) => svg("svg", { class: "swatch", width: 30, height: 18, "aria-hidden": "true" },
    svg("rect", { class: "key-box", x: 1, y: 1, width: 28, height: 16, rx: kind === "neuron" ? 8 : 4 }),
    kind === "weighty" ? svg("rect", { class: "importance", x: 7, y: 11, width: 16, height: 3, rx: 1.5 }) : null);
  const entry = (mark, words) => html("span", { class: "key" }, mark, words);
  document.getElementById("legend").replaceChildren(
    entry(line("pos"), "positive weight"), entry(line("neg"), "negative weight"), entry(line("lane"), "carried by the residual stream"),
    entry(box("channel"), "channel"), entry(box("neuron"), "neuron"), entry(box("weighty"), "bar: importance"));
}

/** A small label beside the pointer. */
class Tip {
  constructor() { this.element = document.getElementById("tip"); }

  show(event, lines) {
    if (!lines) { this.hide(); return; }
    this.element.replaceChildren(...lines.map((line, i) => html(i ? "b" : "span", {}, line)));
    this.element.hidden = false;
    const { width, height } = this.element.getBoundingClientRect();
    this.element.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    this.element.style.top = `${event.clientY - height - 12 < 4 ? event.clientY + 18 : event.clientY - height - 12}px`;
  }

  hide() { this.element.hidden = true; }

  on(element, lines) {
    element.addEventListener("pointermove", (event) => this.show(event, lines(event)));
    element.addEventListener("pointerleave", () => this.hide());
  }
}

/** What is selected and shown. A target is {vertex} or {head}. */
class App {
  constructor(payload) {
    Object.assign(this, { payload, pair: 0, hovered: null, pinned: null, tip: new Tip() });
    this.layout = { vertices: new Map(), links: [], bands: [] };
  }

  current() { return this.pinned ?? this.hovered; }

  targetOf(id) {
    const vertex = this.layout.vertices.get(id);
    return vertex ? { vertex } : null;
  }

  hover(target) {
    this.hovered = target;
    if (this.pinned === null) this.refresh();
  }

  pin(target, follow = false) {
    this.pinned = target;
    this.refresh();
    const element = target?.vertex?.element ?? target?.head?.element;
    if (follow && element) {
      this.view.reveal(element);
      document.getElementById("panel-title")?.focus();
    }
  }

  release() {
    this.pinned = null;
    this.hovered = null;
    this.refresh();
  }

  stepPair(by) {
    const pairs = Math.ceil((this.payload.prompts ?? []).length / 2);
    if (!pairs) return;
    this.pair = (this.pair + by + pairs) % pairs;
    this.refresh();
  }

  refresh() {
    this.tip.hide();
    showPrompts(this);
    showPanel(this);
    this.highlight();
  }

  highlight() {
    const target = this.current();
    const near = new Set();
    const ids = new Set(target?.head ? target.head.vertices.map((v) => v.id) : target ? [target.vertex.id] : []);
    if (/[qk]/.test(target?.vertex?.letter ?? "")) target.vertex.item.vertices.forEach((v) => near.add(v.id));
    for (const link of this.layout.links) {
      const lit = ids.has(link.source) || ids.has(link.target);
      link.element.classList.toggle("lit", lit);
      if (lit) near.add(link.source).add(link.target);
    }
    for (const vertex of this.layout.vertices.values()) {
      vertex.element.classList.toggle("lit", near.has(vertex.id) || ids.has(vertex.id));
      vertex.element.classList.toggle("chosen", target?.vertex === vertex);
    }
    for (const head of headItems(this.layout)) {
      const chosen = target?.head === head;
      head.element.classList.toggle("chosen", chosen);
      const lit = chosen || head.vertices.some((v) => near.has(v.id) || ids.has(v.id));
      head.element.classList.toggle("lit", lit);
      head.gateElement?.classList.toggle("lit", lit);
    }
    this.world?.classList.toggle("focus", Boolean(target));
  }
}

function elementTarget(app, element) {
  const vertex = element?.closest?.(".vertex")?.vertex;
  if (vertex) return { vertex };
  const head = element?.closest?.("[data-head]");
  return head ? { head: headItems(app.layout).find((h) => `${h.layer}.${h.head}` === head.dataset.head) } : null;
}

const sameTarget = (a, b) => a?.vertex === b?.vertex && a?.head === b?.head;

function listenToPicture(app, picture) {
  picture.addEventListener("pointermove", (event) => {
    if (app.view.moved && app.view.pointers.size) { app.tip.hide(); return; }
    const link = event.target.closest?.(".link")?.link;
    if (link) {
      const words = link.kind === "residual" ? "carried along the residual stream" : signed(link.weight);
      app.tip.show(event, [`${endName(app, link.source)} → ${endName(app, link.target)}`, words]);
    } else app.tip.hide();
    const target = elementTarget(app, event.target);
    if (!sameTarget(target, app.hovered)) app.hover(target);
    for (const other of app.layout.links) other.element.classList.toggle("under", other === link);
  });
  picture.addEventListener("pointerleave", () => {
    app.tip.hide();
    if (app.hovered) app.hover(null);
    for (const { element } of app.layout.links) element.classList.remove("under");
  });
  picture.addEventListener("click", (event) => {
    if (app.view.moved) return;
    const target = elementTarget(app, event.target);
    if (!target || sameTarget(target, app.pinned)) app.release();
    else app.pin(target);
  });
  picture.addEventListener("focusin", (event) => app.hover(elementTarget(app, event.target)));
  picture.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const target = elementTarget(app, event.target);
    if (sameTarget(target, app.pinned)) app.release();
    else app.pin(target);
  });
}

function listenToKeys(app) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      Escape: () => { document.getElementById("about").open = false; app.release(); },
      "+": () => app.view?.zoom(1.25), "=": () => app.view?.zoom(1.25),
      "-": () => app.view?.zoom(0.8), "0": () => app.view?.fit(),
      n: () => app.stepPair(1), p: () => app.stepPair(-1),
    }[event.key];
    if (act) act();
  });
  const click = (id, act) => document.getElementById(id).addEventListener("click", act);
  click("zoom-in", () => app.view?.zoom(1.25));
  click("zoom-out", () => app.view?.zoom(0.8));
  click("zoom-fit", () => app.view?.fit());
  click("download", () => download(app));
  listenToTheme(app, click);
}

function listenToTheme(app, click) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const name = () => {
    const button = document.getElementById("theme");
    button.textContent = dark() ? "Light mode" : "Dark mode";
    button.setAttribute("aria-label", dark() ? "Switch to light colours" : "Switch to dark colours");
  };
  click("theme", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
    app.refresh();
  });
  system.addEventListener("change", () => { name(); app.refresh(); });
  name();
}

function start() {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const app = new App(payload);
  showHeader(payload);
  showAbout(payload);
  showLegend();
  const canvas = document.getElementById("canvas");
  if (payload.nodes.length) {
    const { width, height } = canvas.getBoundingClientRect();
    app.layout = layoutGraph(payload, { width: Math.max(320, width - 28), height: Math.max(240, height - 42) });
    Object.assign(app, drawGraph(payload, app.layout));
    canvas.append(app.picture);
    app.view = new View(app.picture, app.world, app.layout);
    new Walker(app.layout, app.view);
    listenToPicture(app, app.picture);
    app.view.fit();
  } else {
    document.body.classList.add("no-circuit");
    canvas.append(html("div", { class: "empty", role: "note" },
      html("h2", {}, "This circuit is empty"),
      html("p", {}, `No node was kept, so there is nothing to draw. A target loss at or above a coin flip (${plain(Math.LN2)}) is met without any circuit: prune again with a lower one.`)));
    for (const id of ["zoom-in", "zoom-out", "zoom-fit", "download"]) document.getElementById(id).disabled = true;
  }
  listenToKeys(app);
  app.refresh();
}

start();
