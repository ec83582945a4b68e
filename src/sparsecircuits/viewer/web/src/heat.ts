// Tokens tinted by numbers, and attention patterns as maps.
import { html, isNumber, percent, signed, visible } from "./dom";
import { tipOn } from "./tip";

export interface TokenRow {
  tokens: string[];
  values?: (number | null)[] | null;
  scale?: number;
  /** The token that is framed: the last, or an example's own. */
  at?: number;
  attention?: boolean;
  label?: string;
  /** Chooses a token, counted back from the last; `chosen` is the one that is. */
  choose?: ((beforeLast: number) => void) | null;
  chosen?: number | null;
}

export function tokenRow({
  tokens,
  values,
  scale = 1,
  at = tokens.length - 1,
  attention = false,
  label = "Tokens",
  choose = null,
  chosen = null,
}: TokenRow): HTMLElement {
  const classes = `tokens${tokens.length > 24 ? " dense" : ""}${choose ? " choosable" : ""}`;
  const row = html("div", { class: classes, role: "list", "aria-label": label });
  tokens.forEach((token, i) => {
    const value = values?.[i];
    const chip = html(
      "span",
      {
        class: `token${i === at ? " last" : ""}${tokens.length - 1 - i === chosen ? " chosen" : ""}`,
        role: "listitem",
        onclick: choose ? () => choose(tokens.length - 1 - i) : null,
        "aria-label": `${visible(token)}${isNumber(value) ? ` ${signed(value)}` : ""}`,
      },
      visible(token),
    );
    if (isNumber(value)) {
      chip.classList.add(value < 0 ? "neg" : "pos");
      chip.style.setProperty("--heat", `${(100 * Math.min(1, Math.abs(value) / (scale || 1))).toFixed(1)}%`);
      chip.dataset.value = String(value);
    }
    tipOn(chip, () => [
      visible(token),
      isNumber(value)
        ? attention
          ? `${percent(value)} of the attention`
          : signed(value)
        : `token ${i + 1} of ${tokens.length}`,
    ]);
    row.append(chip);
    if (token.includes("\n") && i < tokens.length - 1) row.append(html("span", { class: "break" }));
  });
  return row;
}

export function largest(rows: (number | null)[][]): number {
  let most = 1e-12;
  for (const row of rows) for (const value of row) if (isNumber(value)) most = Math.max(most, Math.abs(value));
  return most;
}

/** right - left, token by token from the end, on the tokens of `right`; null where there is no partner. */
export function difference(left: number[], right: number[]): (number | null)[] {
  const shift = left.length - right.length;
  return right.map((value, i) => (i + shift >= 0 ? value - left[i + shift] : null));
}

export function patternMap(pattern: number[][], tokens: string[], label: string): HTMLCanvasElement {
  const size = pattern.length;
  const cell = Math.max(2, Math.min(14, Math.floor(150 / size)));
  const canvas = html("canvas", {
    class: "pattern-map",
    width: size * cell * 2,
    height: size * cell * 2,
    role: "img",
    "aria-label": label,
  });
  canvas.style.width = `${size * cell}px`;
  const context = canvas.getContext("2d")!;
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--pos");
  pattern.forEach((row, i) =>
    row.forEach((value, j) => {
      if (j > i || !isNumber(value)) return;
      context.globalAlpha = 0.06 + 0.94 * Math.max(0, Math.min(1, value));
      context.fillRect(2 * j * cell, 2 * i * cell, 2 * cell - 1, 2 * cell - 1);
    }),
  );
  tipOn(canvas, (event) => {
    const box = canvas.getBoundingClientRect();
    const [j, i] = [
      Math.floor(((event.clientX - box.left) / box.width) * size),
      Math.floor(((event.clientY - box.top) / box.height) * size),
    ];
    if (j > i || !isNumber(pattern[i]?.[j])) return null;
    return [`${visible(tokens[i] ?? i)} looks at ${visible(tokens[j] ?? j)}`, percent(pattern[i][j])];
  });
  return canvas;
}
