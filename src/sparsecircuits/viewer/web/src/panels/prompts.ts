// The prompts on show, tinted by what is selected; the answers before and after; a prompt of one's own.
import type { App } from "../app";
import { SCOPES, byId, html, isNumber, percent, plain, plural, promptsOf, signed, visible } from "../dom";
import { largest, tokenRow } from "../heat";
import { refill } from "../refill";
import { choiceOfToken } from "./touch";
import {
  type Shown,
  type Side,
  activationsOf,
  patternsOf,
  recordedOf,
  shownPrompts,
  sidesOf,
  titleOfSide,
} from "../sides";
import type { Answer, TopToken } from "../types";

function scaleOf(side: Side, rows: number[][], name: string): number {
  return largest([...rows, ...recordedOf(side, name)]);
}

interface Tint {
  rows: (number[] | null)[];
  scale: number;
  attention: boolean;
  words: string;
}

function tintOf(app: App, side: Side, shown: Shown[]): Tint {
  const id = app.current();
  const none = (words: string): Tint => ({ rows: shown.map(() => null), scale: 1, attention: false, words });
  if (id?.startsWith("head:")) {
    const patterns = patternsOf(app, id, side);
    if (!patterns) return none("No attention pattern was recorded for this head.");
    return {
      rows: patterns.shown.map((pattern) => pattern.at(-1) ?? null),
      scale: 1,
      attention: true,
      words: `Colour: where head ${id.split(".")[1]} looks from the last token.`,
    };
  }
  const rows = id ? activationsOf(app, id, side) : null;
  if (!id || !rows)
    return none(
      id && side.compared && app.node(id) ? "Not in this circuit." : "Point at a node to see it on these tokens.",
    );
  return {
    rows,
    scale: scaleOf(side, rows, id),
    attention: false,
    words: `Activation of ${app.state.names[id] ?? id}`,
  };
}

function scoreBar(label: string, logits: number[] | undefined, answer: number, scale: number, name = ""): HTMLElement {
  const margin = logits && isNumber(logits[0]) && isNumber(logits[1]) ? logits[answer] - logits[1 - answer] : null;
  const bar = html("span", { class: "margin-bar" });
  if (margin !== null) {
    const part = html("i", { class: margin < 0 ? "wrong" : "right" });
    part.style.setProperty("--size", `${Math.min(50, (50 * Math.abs(margin)) / scale)}%`);
    bar.append(part);
  }
  const verdict = margin === null ? "" : margin > 0 ? "✓" : "✗";
  return html(
    "div",
    { class: `margin ${name}`, "data-logits": logits ? logits.join(",") : null },
    html("span", { class: "margin-label" }, label),
    bar,
    html("span", { class: "margin-value" }, signed(margin)),
    html(
      "span",
      { class: "margin-mark" },
      verdict,
      margin === null ? null : html("span", { class: "unseen" }, margin > 0 ? "right" : "wrong"),
    ),
  );
}

/** Which answer is preferred, and by how much: of a typed prompt nobody knows the right one. */
function preference(
  answers: Answer[],
  label: string,
  logits: number[] | undefined,
  scale: number,
  name: string,
): HTMLElement {
  const known = logits !== undefined && logits.every(isNumber);
  const lead = known ? logits[1] - logits[0] : 0;
  const bar = html("span", { class: "margin-bar" });
  const part = html("i", { class: lead < 0 ? "first" : "second" });
  part.style.setProperty("--size", `${Math.min(50, (50 * Math.abs(lead)) / scale)}%`);
  bar.append(part);
  const answer = visible(answers[lead < 0 ? 0 : 1]?.text ?? "–");
  const words = !known
    ? ["–"]
    : lead === 0
      ? ["prefers neither"]
      : ["prefers ", html("b", {}, answer), ` by ${plain(Math.abs(lead))}`];
  return html(
    "div",
    { class: `margin preference ${name}`, "data-logits": logits ? logits.join(",") : null },
    html("span", { class: "margin-label" }, label),
    bar,
    html("span", { class: "prefers" }, words),
  );
}

function preferencesOf(app: App, { run }: Shown, widest: number): HTMLElement[] {
  if (!run) return [];
  const { result } = app.runs.answers;
  const { answers } = app.payload!;
  return [
    preference(answers, SCOPES.model, run.full, widest, "full"),
    preference(answers, SCOPES.circuit, run.circuit, widest, "circuit"),
    ...(app.runs.changes
      ? [preference(answers, `${SCOPES[result!.scope]}, after`, run.after.logits, widest, "after")]
      : []),
  ];
}

function scoresOf(app: App, shown: Shown, widest: number): HTMLElement[] {
  const side = shown.answer ?? 0;
  const { run, recorded } = shown;
  if (run && app.runs.needed) {
    const what = SCOPES[app.runs.answers.result!.scope];
    return [
      scoreBar(what, run.before.logits, side, widest, "before"),
      scoreBar("after", run.after.logits, side, widest, "after"),
    ];
  }
  return [
    scoreBar(SCOPES.model, recorded?.full, side, widest),
    scoreBar(SCOPES.circuit, recorded?.circuit, side, widest),
  ];
}

function promptBlock(app: App, side: Side, shown: Shown, i: number, tint: Tint, widest: number): HTMLElement {
  const own = shown.answer === null;
  const top = (reading: TopToken[]): string =>
    reading
      .slice(0, 4)
      .map(({ token, p }) => `${visible(token)} ${percent(p)}`)
      .join("   ");
  const right = own
    ? null
    : html(
        "div",
        { class: "answer-right" },
        "right answer",
        html("b", {}, visible(side.payload.answers[shown.answer!]?.text ?? "–")),
      );
  const tokens = tokenRow({
    tokens: shown.tokens,
    values: tint.rows[i],
    scale: tint.scale,
    attention: tint.attention,
    ...choiceOfToken(app, side),
  });
  const verdict = html(
    "div",
    { class: "verdict" },
    right,
    html("div", { class: "margins" }, own ? preferencesOf(app, shown, widest) : scoresOf(app, shown, widest)),
  );
  const on = side.runs ? continuation(app, i) : null;
  if (!own) return html("div", { class: "prompt", "data-prompt": i }, tokens, verdict, on);
  const next = shown.run
    ? html("p", { class: "next" }, `next token, ${SCOPES[app.runs.answers.result!.scope]}: ${top(shown.run.after.top)}`)
    : null;
  return html("div", { class: "prompt own-prompt", "data-prompt": i }, verdict, next, on, tokens);
}

/** How the prompt goes on, before and after the changes. */
function continuation(app: App, i: number): HTMLElement | null {
  const { result, continued } = app.runs.answers;
  const on = app.runs.needed && result ? continued?.prompts[i] : undefined;
  if (!on) return null;
  const [before, after] = [on.before.join(""), on.after.join("")];
  const line = (words: string, text: string): HTMLElement =>
    html("p", { class: "goes-on" }, html("span", { class: "margin-label" }, words), html("code", {}, visible(text)));
  const where = `goes on, ${SCOPES[result!.scope]}`;
  return html(
    "div",
    { class: "continued", "data-before": before, "data-after": after },
    !app.runs.changes
      ? line(where, after)
      : before === after
        ? line(`${where}, as before`, after)
        : [line(where, before), line("after", after)],
  );
}

function margins(side: Side, shown: Shown[]): number {
  const logits = [
    ...(side.payload.prompts ?? []).flatMap((p) => [p.full, p.circuit]),
    ...shown.flatMap(({ run }) => [run?.before.logits, run?.after.logits, run?.full, run?.circuit]),
  ];
  return Math.max(
    1e-9,
    ...logits
      .filter((pair): pair is number[] => Boolean(pair))
      .map(([a, b]) => Math.abs(a - b))
      .filter(isNumber),
  );
}

function lossLine(app: App): HTMLElement {
  if (!app.runs.needed) return html("p", { class: "foot" }, "Bars: score of the right answer minus the wrong one.");
  if (app.runs.trouble) return html("p", { class: "trouble", role: "alert" }, app.runs.trouble);
  if (!app.runs.answers.result) return html("p", { class: "foot", "aria-busy": "true" }, "computing…");
  if (!app.runs.changes) return html("p", { class: "foot unseen", role: "status" }, "Nothing is changed.");
  const { result, loss } = app.runs.answers;
  const { ms, scope, n_kept: kept } = result!;
  if (!loss) return html("p", { class: "foot", "aria-busy": "true" }, `loss, ${SCOPES[scope]}: computing…`);
  const number = (value: number): HTMLElement =>
    html("b", { class: value > Math.LN2 * 0.9 ? "broken" : "" }, plain(value));
  const same = plain(loss.before) === plain(loss.after);
  const size = app.state.size === null ? "" : ` with ${plural(kept, "node")}`;
  return html(
    "p",
    { class: "loss-line", id: "loss-line", "data-before": loss.before, "data-after": loss.after },
    `loss, ${SCOPES[scope]}: `,
    ...(same ? [number(loss.after), " as before"] : [number(loss.before), " → ", number(loss.after), size]),
    html(
      "span",
      { class: "foot", title: `computed in ${ms.toFixed(0)} ms` },
      ` ${promptsOf(loss.n_prompts, loss.split)}`,
    ),
  );
}

/** Where prompts are typed; second: what the other one is for. */
export function ownForm(app: App, second = "Patch takes values from (optional)"): HTMLElement {
  const { prompt, patch } = app.state;
  const area = (name: string, label: string, value: string | null): HTMLElement =>
    html(
      "label",
      { class: "own-label" },
      label,
      html("textarea", { name, rows: 2, spellcheck: "false", maxlength: 8000 }, value ?? ""),
    );
  const send = ({ currentTarget }: Event): void => {
    const data = new FormData(currentTarget as HTMLFormElement);
    app.store.do("own prompt", {
      prompt: String(data.get("prompt") ?? ""),
      patch: String(data.get("patch") ?? "") || null,
    });
  };
  return html(
    "form",
    {
      class: "own",
      onsubmit: (event: Event) => {
        event.preventDefault();
        send(event);
      },
      onkeydown: (event: KeyboardEvent) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        send(event);
      },
    },
    area("prompt", "Your prompt", prompt),
    area("patch", second, patch),
    html(
      "div",
      { class: "row" },
      html("button", { type: "submit", class: "button" }, "Run"),
      html("span", { class: "foot" }, "Ctrl+Enter runs"),
    ),
  );
}

/** Steps from pair to pair, and the way to a prompt of one's own. */
export function promptSteps(app: App, id: string): HTMLElement {
  const pairs = pairsOf(app);
  const step = (by: number): HTMLElement =>
    html(
      "button",
      {
        type: "button",
        class: "step",
        "data-step": by,
        "aria-label": by < 0 ? "Previous pair" : "Next pair",
        title: by < 0 ? "Previous pair (p)" : "Next pair (n)",
        onclick: () => stepPair(app, by),
      },
      by < 0 ? "‹" : "›",
    );
  const own = app.state.prompt !== null;
  const toggle = app.payload?.live
    ? html(
        "button",
        {
          type: "button",
          class: "step",
          "data-step": "own",
          "aria-pressed": own,
          title: "Type a prompt (t)",
          onclick: () => toggleOwn(app),
        },
        own ? "Pairs" : "Type…",
      )
    : null;
  return html(
    "div",
    { class: "steps" },
    own || !pairs ? null : [step(-1), html("span", { id }, `pair ${app.state.pair + 1} of ${pairs}`), step(1)],
    toggle,
  );
}

export function toggleOwn(app: App): void {
  if (!app.payload?.live) return;
  if (app.state.prompt !== null) {
    app.store.do("back to the pairs", { prompt: null, patch: null });
    return;
  }
  const shown = app.payload.prompts?.slice(2 * app.state.pair, 2 * app.state.pair + 2) ?? [];
  app.store.do("own prompt", { prompt: shown[0]?.text ?? "x = 1", patch: shown[1]?.text ?? null });
  const field = byId("drawer").querySelector("textarea") ?? byId("prompts").querySelector("textarea");
  field?.focus();
}

export function stepPair(app: App, by: number): void {
  const pairs = Math.max(0, ...sidesOf(app).map((side) => Math.ceil((side.payload.prompts ?? []).length / 2)));
  if (pairs && app.state.prompt === null) app.store.set({ pair: (app.state.pair + by + pairs) % pairs });
}

function loaded(app: App): string {
  return app.payload?.live === null
    ? "The prompts appear when the model is loaded."
    : "No prompts were saved with this picture.";
}

/** The prompts of one circuit, with its answers. */
function sidePart(app: App, side: Side): HTMLElement {
  const title = side.compared ? html("h3", {}, titleOfSide(side)) : null;
  const own = side.runs && app.state.prompt !== null;
  const shown = shownPrompts(app, side);
  const part = html("section", { class: "prompt-side", "data-side": side.which }, title);
  if (!side.payload.prompts?.length && !own) {
    part.append(html("p", { class: "empty-note" }, loaded(app)));
    return part;
  }
  const widest = margins(side, shown);
  const tint = tintOf(app, side, shown);
  const blocks = shown.map((each, i) => promptBlock(app, side, each, i, tint, widest));
  const line = side.runs ? lossLine(app) : "";
  part.append(
    app.runs.needed ? line : "",
    own ? "" : tintLine(tint),
    ...blocks,
    own ? tintLine(tint) : "",
    app.runs.needed ? "" : line,
  );
  return part;
}

/** How many pairs the page has. */
export const pairsOf = (app: App): number => Math.ceil((app.payload?.prompts ?? []).length / 2);

export function showPrompts(app: App): void {
  const card = byId("prompts");
  const body = html(
    "div",
    { class: "prompt-list" },
    sidesOf(app).map((side) => sidePart(app, side)),
  );
  if (!app.payload) body.append(html("p", { class: "empty-note" }, loaded(app)));
  const title = html("h2", {}, app.state.prompt === null ? "Prompts" : "Your prompt");
  refill(card, [
    html("div", { class: "card-head" }, title, promptSteps(app, "pair")),
    ...(app.state.prompt === null ? [] : [ownForm(app)]),
    body,
  ]);
}

function tintLine(tint: Tint): HTMLElement {
  if (tint.attention || tint.rows.every((row) => row === null)) return html("p", { class: "tint" }, tint.words);
  return html(
    "p",
    { class: "tint" },
    html("span", { class: "tint-what" }, tint.words),
    html(
      "span",
      { class: "ramp" },
      html("span", {}, signed(-tint.scale)),
      html("i", {}),
      html("span", {}, signed(tint.scale)),
    ),
  );
}
