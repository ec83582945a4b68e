// The pair of prompts on show, its tokens tinted by whatever is selected.

/** [strength in 0…1, sign] of each token, per prompt; null while nothing is selected. */
function tintOf(app, promptIndex) {
  const target = app.current();
  if (target?.vertex?.node?.activations) return target.vertex.node.activations[promptIndex] ?? null;
  if (target?.head) return patternOf(app, target.head, promptIndex)?.at(-1) ?? null;
  return null;
}

function patternOf(app, head, promptIndex) {
  const found = (app.payload.attention ?? []).find((a) => a.layer === head.layer && a.head === head.head);
  return found?.patterns?.[promptIndex] ?? null;
}

function scaleOf(app) {
  const target = app.current();
  if (target?.head) return 1;
  const values = (target?.vertex?.node?.activations ?? []).flat().filter(isNumber).map(Math.abs);
  return Math.max(1e-12, ...values);
}

function tokenRow(app, promptIndex, scale) {
  const prompt = app.payload.prompts[promptIndex];
  const values = tintOf(app, promptIndex);
  const row = html("div", { class: `tokens${prompt.tokens.length > 24 ? " dense" : ""}`, role: "list", "aria-label": "Tokens" });
  prompt.tokens.forEach((token, i) => {
    const last = i === prompt.tokens.length - 1;
    const value = values?.[i];
    const chip = html("span", {
      class: `token${last ? " last" : ""}`, role: "listitem",
      "aria-label": `${visible(token)}${isNumber(value) ? ` ${signed(value)}` : ""}${last ? ", last token" : ""}`,
    }, visible(token));
    if (isNumber(value)) {
      const strength = Math.min(1, Math.abs(value) / scale);
      chip.classList.add(value < 0 ? "neg" : "pos");
      chip.style.setProperty("--heat", `${(strength * 100).toFixed(1)}%`);
      chip.dataset.value = String(value);
    }
    app.tip.on(chip, () => [`${visible(token)}`, isNumber(value) ? (app.current()?.head ? `${(value * 100).toFixed(1)}% of the attention` : signed(value)) : `token ${i + 1} of ${prompt.tokens.length}`]);
    row.append(chip);
    if (String(token).includes("\n") && !last) row.append(html("span", { class: "break" }));
  });
  return row;
}

function scoreBar(label, logits, answer, scale) {
  const margin = logits && isNumber(logits[0]) && isNumber(logits[1]) ? logits[answer] - logits[1 - answer] : null;
  const bar = html("span", { class: "margin-bar" });
  if (margin !== null) {
    const part = html("i", { class: margin < 0 ? "wrong" : "right" });
    part.style.setProperty("--size", `${(50 * Math.abs(margin)) / scale}%`);
    bar.append(part);
  }
  const verdict = margin === null ? "" : margin > 0 ? "✓" : "✗";
  return html("div", { class: "margin" },
    html("span", { class: "margin-label" }, label), bar,
    html("span", { class: "margin-value" }, signed(margin)),
    html("span", { class: "margin-mark", "aria-label": margin === null ? "" : margin > 0 ? "right" : "wrong" }, verdict));
}

function promptBlock(app, promptIndex, scale) {
  const { prompts, answers } = app.payload;
  const prompt = prompts[promptIndex];
  const margins = prompts.flatMap((p) => [p.full, p.circuit]).filter(Boolean).map(([a, b]) => Math.abs(a - b)).filter(isNumber);
  const widest = Math.max(1e-9, ...margins);
  return html("div", { class: "prompt", "data-prompt": promptIndex },
    tokenRow(app, promptIndex, scale),
    html("div", { class: "verdict" },
      html("div", { class: "answer-right" }, "right answer", html("b", {}, visible(answers[prompt.answer]?.text ?? "–"))),
      html("div", { class: "margins" },
        scoreBar("whole model", prompt.full, prompt.answer, widest),
        scoreBar("circuit alone", prompt.circuit, prompt.answer, widest))));
}

function tintLine(app, scale) {
  const target = app.current();
  if (target?.head && !patternOf(app, target.head, app.pair * 2)) return html("p", { class: "tint" }, "No attention pattern was saved for this head.");
  if (target?.head) return html("p", { class: "tint" }, `Colour: where head ${target.head.head} looks from the last token.`);
  const node = target?.vertex?.node;
  if (!node?.activations?.length) return html("p", { class: "tint" }, "Point at a node to see it on these tokens.");
  return html("p", { class: "tint" },
    html("span", { class: "tint-what" }, `Activation of ${node.name}`),
    html("span", { class: "ramp" }, html("span", {}, signed(-scale)), html("i", {}), html("span", {}, signed(scale))));
}

function showPrompts(app) {
  const card = document.getElementById("prompts");
  const prompts = app.payload.prompts ?? [];
  if (!prompts.length) {
    card.replaceChildren(html("h2", {}, "Prompts"), html("p", { class: "empty-note" }, "No prompts were saved with this picture."));
    return;
  }
  const pairs = Math.ceil(prompts.length / 2);
  const focused = document.activeElement?.dataset?.step;
  const step = (by) => html("button", {
    type: "button", class: "step", "data-step": by, "aria-label": by < 0 ? "Previous pair" : "Next pair", title: by < 0 ? "Previous pair (p)" : "Next pair (n)",
    onclick: () => app.stepPair(by),
  }, by < 0 ? "‹" : "›");
  const scale = scaleOf(app);
  const scrolled = card.scrollTop;
  const shown = [2 * app.pair, 2 * app.pair + 1].filter((i) => i < prompts.length);
  card.replaceChildren(
    html("div", { class: "card-head" },
      html("h2", {}, "Prompts"),
      html("div", { class: "steps" }, step(-1), html("span", { id: "pair" }, `pair ${app.pair + 1} of ${pairs}`), step(1))),
    tintLine(app, scale),
    ...shown.map((i) => promptBlock(app, i, scale)),
    html("p", { class: "foot" }, "Bars: score of the right answer minus the wrong one."));
  card.scrollTop = scrolled;
  if (focused) card.querySelector(`[data-step="${focused}"]`)?.focus();
}
