// Says at the edges of a window that the picture goes on there, and turns it there.
import { html } from "./dom";

const SIDES = {
  above: ["↑ more above", 0, 1],
  below: ["↓ more below", 0, -1],
  left: ["← more", 1, 0],
  right: ["more →", -1, 0],
} as const;
type Side = keyof typeof SIDES;

const SLACK = 12; // pixels of what is drawn that may lie outside without a word
const TURN = 0.75; // of the window

export class Beyond {
  private readonly signs = new Map<Side, HTMLElement>();

  constructor(box: HTMLElement, move: (dx: number, dy: number) => void) {
    for (const side of Object.keys(SIDES) as Side[]) {
      const [words, dx, dy] = SIDES[side];
      const sign = html(
        "button",
        {
          type: "button",
          class: "beyond",
          "data-side": side,
          tabindex: -1, // the arrow keys go there from node to node
          hidden: true,
          onclick: () => move(dx * TURN * box.clientWidth, dy * TURN * box.clientHeight),
        },
        words,
      );
      this.signs.set(side, sign);
      box.append(sign);
    }
  }

  /** The drawn rectangle, in pixels of a window of that size. */
  show(left: number, top: number, right: number, bottom: number, width: number, height: number): void {
    const out: Record<Side, boolean> = {
      above: top < -SLACK,
      below: bottom > height + SLACK,
      left: left < -SLACK,
      right: right > width + SLACK,
    };
    for (const [side, sign] of this.signs) sign.hidden = !out[side];
  }

  close(): void {
    for (const sign of this.signs.values()) sign.remove();
  }
}
