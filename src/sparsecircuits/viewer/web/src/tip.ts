// A small label beside the pointer.
import { byId, handle, html } from "./dom";

export function showTip(event: MouseEvent, lines: string[] | null): void {
  const tip = byId("tip");
  if (!lines) {
    hideTip();
    return;
  }
  tip.replaceChildren(...lines.map((line, i) => html(i ? "b" : "span", {}, line)));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY - height - 12 < 4 ? event.clientY + 18 : event.clientY - height - 12}px`;
}

export function hideTip(): void {
  byId("tip").hidden = true;
}

export function tipOn(element: HTMLElement, lines: (event: PointerEvent) => string[] | null): void {
  handle(element, "pointermove", (event) => showTip(event as PointerEvent, lines(event as PointerEvent)));
  handle(element, "pointerleave", hideTip);
}
