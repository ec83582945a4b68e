"use strict";
(() => {
  const data = JSON.parse(document.getElementById("payload").textContent);
  const W = 460, H = 250, LEFT = 52, RIGHT = 12, TOP = 8, BOTTOM = 34;
  const AXIS_TITLES = { steps: "steps", tokens: "tokens", minutes: "minutes of training" };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { axis: data.axis, hidden: new Set() };
  const color = (run) => (dark.matches ? data.runs[run].dark : data.runs[run].light);

  const svg = (tag, attributes, parent) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (parent) parent.append(made);
    return made;
  };
  const html = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  const short = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    for (const [unit, mark] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (size >= unit) return `${+(value / unit).toPrecision(3)}${mark}`;
    return size >= 1e-3 || size === 0 ? `${+value.toPrecision(4)}` : value.toExponential(1);
  };

  const niceStep = (span, wanted) => {
    const raw = span / wanted, power = 10 ** Math.floor(Math.log10(raw));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  };
  const linearTicks = (low, high, wanted) => {
    const step = niceStep(high - low, wanted), ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); i++) ticks.push(i * step);
    return ticks;
  };
  const logTicks = (low, high) => {
    const factors = high / low > 1e3 ? [1] : [1, 2, 5], ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const factor of factors) ticks.push(factor * 10 ** power);
    return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  };

  const extent = (values) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
    return low > high ? [0, 1] : [low, high];
  };

  // Scales of one panel from what is shown: x and y map values to pixels.
  const scales = (panel, curves) => {
    const [x0, x1] = extent(curves.flatMap((c) => c.x[state.axis]));
    let [y0, y1] = extent(curves.flatMap((c) => c.y));
    if (panel.log && y0 > 0) { y0 /= 1.15; y1 *= 1.15; }
    else { const room = 0.05 * (y1 - y0 || Math.abs(y1) || 1); y0 = y0 >= 0 ? Math.max(0, y0 - room) : y0 - room; y1 += room; }
    const log = panel.log && y0 > 0, up = log ? Math.log : (v) => v;
    return {
      log, x0, x1, y0, y1,
      x: (v) => LEFT + ((v - x0) / (x1 - x0 || 1)) * (W - LEFT - RIGHT),
      y: (v) => H - BOTTOM - ((up(v) - up(y0)) / (up(y1) - up(y0))) * (H - TOP - BOTTOM),
    };
  };

  const path = (xs, ys, s) => {
    let text = "", pen = "M";
    xs.forEach((x, i) => {
      if (x === null || ys[i] === null || (s.log && ys[i] <= 0)) { pen = "M"; return; }
      text += `${pen}${s.x(x).toFixed(1)},${s.y(ys[i]).toFixed(1)}`;
      pen = "L";
    });
    return text;
  };

  const drawAxes = (root, s) => {
    for (const tick of s.log ? logTicks(s.y0, s.y1) : linearTicks(s.y0, s.y1, 5)) {
      svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: s.y(tick), y2: s.y(tick) }, root);
      svg("text", { x: LEFT - 6, y: s.y(tick) + 4, "text-anchor": "end" }, root).textContent = short(tick);
    }
    for (const tick of linearTicks(s.x0, s.x1, 5))
      svg("text", { x: s.x(tick), y: H - BOTTOM + 15, "text-anchor": "middle" }, root).textContent = short(tick);
    svg("text", { x: W - RIGHT, y: H - 4, "text-anchor": "end" }, root).textContent = AXIS_TITLES[state.axis];
  };

  const drawCurve = (root, curve, s) => {
    const xs = curve.x[state.axis], style = { fill: "none", stroke: color(curve.run), "stroke-dasharray": data.runs[curve.run].dash };
    if (curve.smooth) svg("path", { ...style, d: path(xs, curve.y, s), opacity: 0.25, "stroke-width": 1 }, root);
    svg("path", { ...style, d: path(xs, curve.smooth || curve.y, s), "stroke-width": 1.8, class: "curve" }, root);
    if (curve.points)
      xs.forEach((x, i) => {
        if (x !== null && curve.y[i] !== null)
          svg("circle", { cx: s.x(x), cy: s.y(curve.y[i]), r: 3, fill: color(curve.run) }, root);
      });
  };

  const nearest = (xs, value) => {
    let best = 0;
    xs.forEach((x, i) => { if (x !== null && Math.abs(x - value) < Math.abs(xs[best] - value)) best = i; });
    return best;
  };

  const views = [];
  // A run that is not there at a place, because it ended before or began later, has no value there.
  const reading = (curve, value) => {
    const xs = curve.x[state.axis], ys = curve.smooth || curve.y, [low, high] = extent(xs);
    if (value === null) return short(ys[ys.length - 1]);
    const room = 1e-6 * Math.abs(high) + (xs.length > 1 ? 0 : Math.abs(high) / 50);
    return value < low - room || value > high + room ? "–" : short(ys[nearest(xs, value)]);
  };
  // Pointing at one panel reads all of them at the same place; else they show their ends, so that nothing moves.
  const point = (value) => {
    for (const view of views) {
      view.readout.replaceChildren();
      view.cross.setAttribute("visibility", value === null ? "hidden" : "visible");
      if (value !== null) for (const end of ["x1", "x2"]) view.cross.setAttribute(end, view.s.x(value));
      html("span", value === null ? "end" : short(value), view.readout).className = "at";
      for (const curve of view.curves) {
        const name = [data.runs.length > 1 ? data.runs[curve.run].name : "", curve.label].filter(Boolean).join(" ");
        const entry = html("span", undefined, view.readout);
        html("i", undefined, entry).style.background = color(curve.run); // as letters some colours are too faint
        entry.append(name ? `${name} ` : "");
        html("b", reading(curve, value), entry);
      }
    }
  };

  const draw = () => {
    const main = document.getElementById("panels");
    main.replaceChildren();
    views.length = 0;
    for (const panel of data.panels) {
      const figure = html("figure", undefined, main), caption = html("figcaption", panel.title, figure);
      const labels = [...new Set(panel.curves.map((c) => c.label).filter(Boolean))];
      html("span", [panel.unit, labels.length > 1 ? "line: training, dots: validation" : ""].filter(Boolean).join(" · "), caption);
      const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${panel.title}, ${panel.unit}` }, figure);
      const curves = panel.curves.filter((c) => !state.hidden.has(c.run)), s = scales(panel, curves);
      drawAxes(root, s);
      for (const curve of curves) drawCurve(root, curve, s);
      const cross = svg("line", { class: "cross", y1: TOP, y2: H - BOTTOM, visibility: "hidden" }, root);
      views.push({ s, curves, cross, readout: Object.assign(html("div", undefined, figure), { className: "readout" }) });
      root.addEventListener("pointermove", (event) => {
        const box = root.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * W;
        const share = Math.min(1, Math.max(0, (at - LEFT) / (W - LEFT - RIGHT)));
        point(s.x0 + share * (s.x1 - s.x0));
      });
      root.addEventListener("pointerleave", () => point(null));
    }
    point(null);
  };

  const buttons = () => {
    const axes = document.getElementById("axes"), runs = document.getElementById("runs");
    axes.replaceChildren();
    runs.replaceChildren();
    for (const axis of Object.keys(AXIS_TITLES)) {
      const button = html("button", axis, axes);
      button.setAttribute("aria-pressed", state.axis === axis);
      button.onclick = () => { state.axis = axis; refresh(); };
    }
    data.runs.forEach((run, place) => {
      const button = html("button", undefined, runs), key = svg("svg", { width: 22, height: 8 }, button);
      key.style.width = "22px";
      svg("line", { x1: 0, x2: 22, y1: 4, y2: 4, stroke: color(place), "stroke-width": 3, "stroke-dasharray": run.dash }, key);
      html("span", run.name, button);
      button.setAttribute("aria-pressed", !state.hidden.has(place));
      button.onclick = () => { state.hidden.has(place) ? state.hidden.delete(place) : state.hidden.add(place); refresh(); };
    });
  };

  const table = () => {
    const columns = [["steps", (l) => short(l.step)], ["tokens", (l) => short(l.tokens)],
      ["minutes", (l) => short(l.seconds === undefined ? null : l.seconds / 60)], ["training loss", (l) => short(l.loss)],
      ["validation loss", (l) => short(l.val_loss)], ["nonzero weights", (l) => short(l.nonzeros)],
      ["density", (l) => (l.density === undefined ? "–" : `${short(100 * l.density)}%`)],
      ["alive neurons", (l) => (l.alive_share === undefined ? "–" : `${short(100 * l.alive_share)}%`)]];
    const root = document.getElementById("last"), head = html("tr", undefined, html("thead", undefined, root));
    for (const name of ["at the end", ...columns.map(([title]) => title)]) html("th", name, head);
    const body = html("tbody", undefined, root);
    for (const run of data.runs) {
      const row = html("tr", undefined, body);
      for (const text of [run.name, ...columns.map(([, show]) => show(run.last))]) html("td", text, row);
    }
  };

  const refresh = () => { buttons(); draw(); };
  dark.addEventListener("change", refresh);
  refresh();
  table();
})();
