// Puts the page together, and what happens on keys.
import "./style.css";
import { type Kept, embedded, server } from "./api";
import { App, keyOf } from "./app";
import { byId, html, isNumber, plain, signed, svg, visible } from "./dom";
import { type Format, exportAs, rememberPage } from "./export";
import { alongLine, flowOf } from "./flow";
import { beginGuide, showGuide } from "./guide";
import type { Link } from "./layout/graph";
import { MOST_DRAWN } from "./layout/rest";
import { looksByHead } from "./looks";
import { showCompareMenu } from "./panels/compare";
import { showDetails } from "./panels/details";
import { showDrawer } from "./panels/drawer";
import { forgetSearch } from "./panels/find";
import { showHeader } from "./panels/header";
import { endName } from "./panels/node";
import { showPrompts, stepPair, toggleOwn } from "./panels/prompts";
import { showSizes } from "./panels/sizes";
import { showStrip, targetsOf, touchSelected } from "./panels/touch";
import { refill } from "./refill";
import type { Stage } from "./stage";
import { type Drawer, opening } from "./state";
import { shownPrompts, sideFor, sidesOf } from "./sides";
import { hideTip, showTip } from "./tip";
import { shortWords } from "./words";
import { isMeasured } from "./worth";

const NOT_MEASURED =
  "Importance was not measured: by how much of the way to the answers goes through a node, by weights";

function showLegend(app: App): void {
  const swatch = (name: string): SVGSVGElement => {
    const line = svg("path", { class: `line key-${name}`, d: "M1 6H29" });
    return svg("svg", { class: "swatch", width: 30, height: 12, "aria-hidden": "true" }, line);
  };
  const entry = (name: string, words: string): HTMLElement => html("span", { class: "key" }, swatch(name), words);
  const choice = (flow: number, words: string, title: string): HTMLElement =>
    html(
      "button",
      {
        type: "button",
        role: "radio",
        "aria-checked": (app.state.prompt === null ? app.state.flow : Math.min(1, app.state.flow)) === flow,
        title,
        "data-flow": flow,
        onclick: () => app.store.set({ flow }),
      },
      words,
    );
  const known = Boolean(app.payload?.prompts?.length);
  const nodes = app.payload?.nodes.length ?? 0;
  const all = (whole: boolean, words: string, title: string): HTMLElement =>
    html(
      "button",
      {
        type: "button",
        role: "radio",
        "aria-checked": app.state.whole === whole,
        title,
        "data-whole": whole ? 1 : 0,
        onclick: () => app.store.set({ whole }),
      },
      words,
    );
  refill(byId("legend"), [
    known
      ? html(
          "div",
          { class: "segments", role: "radiogroup", "aria-label": "What lines show" },
          choice(0, "Weights", "A line is as thick as its weight"),
          ...(app.state.prompt === null ? ["Upper prompt", "Lower prompt"] : ["This prompt"]).map((words, i) =>
            choice(i + 1, words, "A line is as thick as activation × weight there, at its strongest"),
          ),
        )
      : "",
    html(
      "div",
      { class: "keys-row" },
      nodes > MOST_DRAWN && app.state.compare === null
        ? html(
            "div",
            { class: "segments", id: "drawn", role: "radiogroup", "aria-label": "What is drawn" },
            all(
              false,
              "Most important",
              `The rest of each row is one box. ${isMeasured(app.payload!) ? "By importance" : NOT_MEASURED}`,
            ),
            all(true, `All ${nodes}`, "Each node has a box of its own"),
          )
        : "",
      entry("pos", "adds"),
      entry("neg", "subtracts"),
      entry("lane", "residual stream"),
      app.payload?.backups?.core.length
        ? html("span", { class: "key", title: app.payload.backups.words }, html("i", { class: "key-core" }), "core")
        : null,
    ),
  ]);
}

/** Title and words of what stands in place of the picture; none where there is a picture. */
function noteOf(app: App): [string, string] | null {
  const { payload } = app;
  if (app.trouble) return ["This circuit cannot be shown", app.trouble];
  if (!payload && app.state.circuit) return ["Opening the circuit…", ""];
  if (!payload)
    return ["No circuit here", "Start the viewer with a circuit.json, a run directory, or a folder of runs."];
  if (!payload.nodes.length) {
    return [
      "This circuit is empty",
      `No node was kept, so there is nothing to draw. A target loss at or above a coin flip (${plain(Math.LN2)}) ` +
        "is met without any circuit: prune again with a lower one.",
    ];
  }
  const out = app.leftOut();
  if (payload.nodes.every((node) => out.has(node.name)))
    return ["Everything is filtered out", "Lower the importance, or show the hidden nodes again (key /)."];
  return null;
}

/** What is said above the picture, and what can be done about it. */
function bannerOf(app: App): (HTMLElement | string)[] {
  if (app.gone) return ["The server has gone: start it again with “sparsecircuits view”, and this page goes on."];
  if (app.changed !== null) {
    return [
      "This circuit changed since it was opened: what is shown is the earlier one, and nothing runs any more. ",
      html(
        "button",
        { type: "button", class: "chip-button", id: "reload", onclick: () => void app.reload() },
        "Reload",
      ),
    ];
  }
  if (app.payload?.live === false && app.payload.problem) return [`Shown from the file alone: ${app.payload.problem}`];
  return app.notice === null ? [] : [app.notice];
}

function showNotes(app: App): void {
  const note = byId("note");
  const found = noteOf(app);
  const { instead } = app;
  note.hidden = found === null;
  refill(note, [
    ...(found ? [html("h2", {}, found[0]), html("p", {}, found[1])] : []),
    ...(instead
      ? [
          html(
            "button",
            { type: "button", class: "button", id: "instead", onclick: () => app.store.set(opening(instead.id)) },
            `Open ${instead.task} as it is now`,
          ),
        ]
      : []),
  ]);
  const banner = byId("banner");
  const words = bannerOf(app);
  banner.hidden = !words.length;
  refill(banner, words);
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-zoom], #download"))
    button.disabled = !app.payload?.nodes.length;
}

function render(app: App): void {
  showHeader(app);
  showNotes(app);
  showGuide(app);
  showPrompts(app);
  showDetails(app);
  showStrip(app);
  showSizes(app);
  showLegend(app);
  showCompareMenu(app);
  showDrawer(app);
  document.body.classList.toggle("wide", app.state.wide);
  showTheme(app);
}

const MOST_TOKENS = 5; // in the label of a line

/** Where a line carries most on the prompt on show, token by token. */
function tokensAlong(app: App, link: Link): string[] {
  const flow = flowOf(app);
  const edge = app.payload?.edges.find((each) => each.source === link.source && each.target === link.target);
  const values = flow && edge && isNumber(edge.weight) ? alongLine(flow, edge.source, edge.weight) : null;
  if (!flow || !values) return [];
  const order = values.map((value, place) => ({ value, place })).sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const shown = order.filter(({ value }) => value !== 0).slice(0, MOST_TOKENS);
  return shown.map(({ value, place }) => `${visible(flow.tokens[place])} ${signed(value)}`);
}

function onHover(app: App, id: string | null, event: PointerEvent | FocusEvent): void {
  for (const element of document.querySelectorAll(".link.under")) element.classList.remove("under");
  if (!id || !(event instanceof PointerEvent)) {
    hideTip();
    return;
  }
  if (/^(edge|link):/.test(id)) {
    const link = app.linkOf(id);
    if (!link) return;
    app.stages.map((stage) => stage.drawing?.links.get(link)).forEach((element) => element?.classList.add("under"));
    const words = link.kind === "residual" ? "carried along the residual stream" : signed(link.weight);
    showTip(event, [`${endName(app, link.source)} → ${endName(app, link.target)}`, words, ...tokensAlong(app, link)]);
    return;
  }
  const name = app.state.names[id];
  const payload = sideFor(app, id)?.payload;
  const caption = payload ? shortWords(payload, id) : null;
  const looks = id.startsWith("head:") && payload ? looksByHead(payload)[id.slice(5)] : undefined;
  if (name ?? caption) showTip(event, [id, (name ?? caption)!]);
  else if (looks) showTip(event, [`head ${id.split(".")[1]}`, `looks from the last token at ${looks}`]);
  else hideTip();
}

// ------------------------------------------------------------------ theme

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = (app: App): boolean => (app.state.theme ?? (system.matches ? "dark" : "light")) === "dark";

function showTheme(app: App): void {
  document.documentElement.dataset.theme = isDark(app) ? "dark" : "light";
  byId("theme").setAttribute("aria-label", isDark(app) ? "Light mode" : "Dark mode");
}

// ------------------------------------------------------------------ keys and buttons

function toggle(app: App, drawer: Drawer): void {
  app.store.set({ drawer: app.state.drawer === drawer ? null : drawer });
}

function scaleBy(app: App, step: number): void {
  const keys = targetsOf(app, app.state.selected).map((target) => keyOf({ kind: "scale", ...target }));
  const now = app.state.touch.find((change) => change.kind === "scale" && keys.includes(keyOf(change)))?.factor ?? 1;
  touchSelected(app, "scale", Math.round(10 * (now + step)) / 10);
}

function escape(app: App): void {
  app.hovered = null;
  app.mark();
  if (app.state.drawer) {
    const was = document.querySelector<HTMLElement>(`[data-drawer="${app.state.drawer}"]`);
    app.store.set({ drawer: null });
    forgetSearch(app);
    was?.focus();
    return;
  }
  if (app.state.wide) {
    app.store.set({ wide: false });
    return;
  }
  byId<HTMLDetailsElement>("export").open = false;
  const selected = app.state.selected;
  app.store.set({ selected: null });
  const element = selected ? app.stage.elementOf(selected) : null;
  if (element && document.activeElement === document.body) app.stage.focus(element);
}

/** Goes on to the field that names a group of what is selected. */
function groupSelected(app: App): void {
  const field = byId("panel").querySelector<HTMLElement>("input[name=several]");
  if (field) field.focus();
  else toggle(app, "find");
}

/** The one token that changes are made at, further from the end or nearer; beyond either end it is all of them. */
function stepToken(app: App, by: number): void {
  const side = sidesOf(app)[0];
  const longest = Math.max(0, ...(side ? shownPrompts(app, side) : []).map(({ tokens }) => tokens.length));
  const next = app.state.token === null ? (by > 0 ? 0 : longest - 1) : app.state.token + by;
  app.store.set({ token: next < 0 || next >= longest ? null : next });
}

function hide(app: App): void {
  const { selected, hidden } = app.state;
  if (selected && app.node(selected))
    app.store.do(`hide ${selected}`, { hidden: [...hidden, selected], selected: null });
}

type Zoom = "in" | "out" | "fit";
function zoom(stages: Stage[], how: Zoom): void {
  for (const { view } of stages) {
    if (how === "fit") view?.fit();
    else view?.zoom(how === "in" ? 1.25 : 0.8);
  }
}

function keysOf(app: App): Record<string, () => void> {
  return {
    "+": () => zoom(app.stages, "in"),
    "=": () => zoom(app.stages, "in"),
    "-": () => zoom(app.stages, "out"),
    "0": () => zoom(app.stages, "fit"),
    n: () => stepPair(app, 1),
    p: () => stepPair(app, -1),
    t: () => toggleOwn(app),
    1: () => touchSelected(app, "mean"),
    2: () => touchSelected(app, "zero"),
    3: () => touchSelected(app, "resample"),
    4: () => touchSelected(app, "patch"),
    "[": () => scaleBy(app, -0.5),
    "]": () => scaleBy(app, 0.5),
    u: () => app.store.undo(),
    U: () => app.store.redo(),
    r: () => {
      if (app.state.touch.length) app.store.do("reset", { touch: [] });
    },
    s: () => {
      if (app.payload?.live)
        app.store.do(app.state.scope === "model" ? "in the circuit alone" : "in the whole model", {
          scope: app.state.scope === "model" ? "circuit" : "model",
        });
    },
    x: () => hide(app),
    g: () => groupSelected(app),
    ",": () => stepToken(app, 1),
    ".": () => stepToken(app, -1),
    "/": () => toggle(app, "find"),
    c: () => toggle(app, "card"),
    b: () => {
      if (app.payload?.steering) toggle(app, "steer");
    },
    h: () => toggle(app, "history"),
    "?": () => toggle(app, "help"),
    m: () => app.store.set({ wide: !app.state.wide }),
    d: () => app.store.set({ theme: isDark(app) ? "light" : "dark" }),
  };
}

function listen(app: App): void {
  const keys = keysOf(app);
  addEventListener("keydown", (event) => {
    const typing = (event.target as Element).matches?.("textarea, input:not([type=range]), select");
    if (event.key === "Escape") {
      if (typing) (event.target as HTMLElement).blur();
      escape(app);
      return;
    }
    if (typing || event.altKey) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "z") return;
      event.preventDefault();
      if (event.shiftKey) app.store.redo();
      else app.store.undo();
      return;
    }
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  const click = (id: string, act: () => void): void => byId(id).addEventListener("click", act);
  for (const button of document.querySelectorAll<HTMLElement>("[data-zoom]")) {
    const box = button.closest(".stage-box")!;
    button.addEventListener("click", () =>
      zoom(
        app.stages.filter((stage) => box.contains(stage.box)),
        button.dataset.zoom as Zoom,
      ),
    );
  }
  click("theme", () => app.store.set({ theme: isDark(app) ? "light" : "dark" }));
  for (const button of document.querySelectorAll<HTMLElement>("[data-drawer]"))
    button.addEventListener("click", () => toggle(app, button.dataset.drawer as Drawer));
  for (const button of document.querySelectorAll<HTMLElement>("[data-format]")) {
    button.addEventListener("click", () => {
      byId<HTMLDetailsElement>("export").open = false;
      byId("export-trouble").textContent = "";
      exportAs(app, button.dataset.format as Format).catch((error: Error) => {
        byId("export-trouble").textContent = error.message;
      });
    });
  }
  byId("circuits").addEventListener("change", (event) =>
    app.store.set(opening((event.target as HTMLSelectElement).value)),
  );
  byId("compare").addEventListener("change", (event) =>
    app.store.set({ compare: (event.target as HTMLSelectElement).value || null, zoom: null }),
  );
  byId("end-compare").addEventListener("click", () => app.store.set({ compare: null, zoom: null }));
  system.addEventListener("change", () => app.tell());
}

function start(): void {
  const data = document.getElementById("payload");
  if (data) rememberPage();
  const saved = document.getElementById("kept")?.textContent;
  const kept = saved ? (JSON.parse(saved) as Kept) : null;
  const app = new App(data ? embedded(JSON.parse(data.textContent ?? "null"), kept) : server, kept);
  app.onHover = (id, event) => onHover(app, id, event);
  app.listen(() => render(app));
  document.body.classList.toggle("comparing", app.state.compare !== null);
  listen(app);
  beginGuide(app);
  render(app);
  void app.start();
}

start();
