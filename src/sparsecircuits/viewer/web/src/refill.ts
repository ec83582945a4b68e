// Puts new content in place of old by changing only what differs: what a person types, drags, has opened or scrolled,
// and what has the focus, stays as it is however often a panel is rendered.
import { moveHandlers } from "./dom";

/** Fields whose content was edited and is not done with. */
const edited = new WeakSet<EventTarget>();
addEventListener("input", ({ target }) => target && edited.add(target), true);
for (const done of ["change", "focusout"])
  addEventListener(done, ({ target }) => target && edited.delete(target), true);

const KEYS = ["id", "data-title", "data-kind", "data-act", "data-to", "data-step", "name", "aria-label"];

/** What an element is among its siblings. */
function keyOf(element: Element): string {
  const key = KEYS.find((name) => element.hasAttribute(name));
  return `${element.localName} ${element.classList[0] ?? ""} ${key ? element.getAttribute(key) : ""}`;
}

function same(old: Node, next: Node): boolean {
  if (old instanceof Element && next instanceof Element)
    return keyOf(old) === keyOf(next) && !(next instanceof HTMLCanvasElement);
  return old.nodeType === Node.TEXT_NODE && next.nodeType === Node.TEXT_NODE;
}

/** The children of `box` become those of `parts`, which is used up. */
export function refill(box: Element, parts: (Node | string)[]): void {
  const next = document.createDocumentFragment();
  next.append(...parts);
  fillFrom(box, next);
}

function fillFrom(box: Element, wanted: ParentNode): void {
  let old = box.firstChild;
  for (const next of [...wanted.childNodes]) {
    let twin = old;
    while (twin && !same(twin, next)) twin = twin.nextSibling;
    if (!twin) {
      box.insertBefore(next, old);
      continue;
    }
    while (old !== twin) old = dropped(old!);
    old = twin.nextSibling;
    if (twin instanceof Element) become(twin, next as Element);
    else if (twin.nodeValue !== next.nodeValue) twin.nodeValue = next.nodeValue;
  }
  while (old) old = dropped(old);
}

function dropped(node: ChildNode): ChildNode | null {
  const after = node.nextSibling;
  node.remove();
  return after;
}

function become(old: Element, next: Element): void {
  moveHandlers(next, old);
  if (old instanceof HTMLOutputElement && [...old.parentElement!.children].some((each) => edited.has(each))) return;
  const value = isField(old) ? old.defaultValue : null;
  attributesFrom(old, next);
  if (!(old instanceof HTMLTextAreaElement)) fillFrom(old, next);
  if (!isField(old) || !isField(next) || value === next.defaultValue) return; // what is typed is a draft of its own
  if (old instanceof HTMLTextAreaElement) old.defaultValue = next.defaultValue;
  if (!edited.has(old)) old.value = next.defaultValue;
}

const isField = (element: Element): element is HTMLInputElement | HTMLTextAreaElement =>
  element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement;

type Styled = Element & ElementCSSInlineStyle;

function attributesFrom(old: Element, next: Element): void {
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) === value) continue;
    if (name === "style")
      (old as Styled).style.cssText = value; // the attribute itself the page's policy forbids
    else old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes])
    if (!next.hasAttribute(name) && !(name === "open" && old instanceof HTMLDetailsElement)) old.removeAttribute(name);
}
