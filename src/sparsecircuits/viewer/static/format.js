// Small helpers: elements, numbers, tokens, and what things are called in words.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined) continue;
    element.append(child); // strings become text nodes: nothing here ever parses HTML
  }
  return element;
}

function html(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function digits(value) {
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return size.toExponential(1);
  return size >= 1000 ? size.toFixed(0) : size.toFixed(size >= 100 ? 1 : 3);
}

/** A number with its sign; a dash where there is none. */
function signed(value) {
  if (!isNumber(value)) return "–";
  return (value < 0 ? "−" : "+") + digits(value);
}

function plain(value) {
  if (!isNumber(value)) return "–";
  return (value < 0 ? "−" : "") + digits(value);
}

function count(value) {
  return isNumber(value) ? Math.round(value).toLocaleString("en-US") : "–";
}

function plural(n, one, many) {
  return `${count(n)} ${n === 1 ? one : many ?? one + "s"}`;
}

/** Text of a token with spaces, tabs, newlines and control characters made visible. */
function visible(text) {
  return String(text)
    .replaceAll(" ", "·")
    .replaceAll("\n", "↵")
    .replaceAll("\t", "⇥")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
      (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

function shorten(text, length) {
  const letters = [...text];
  return letters.length <= length ? text : letters.slice(0, length - 1).join("") + "…";
}

const KINDS = {
  "attn.act_in": ["Attention read", "A channel of the residual stream, as the attention of this layer reads it."],
  "attn.q": ["Query channel", "Part of what a head looks for. Where query and key agree, the head pays attention."],
  "attn.k": ["Key channel", "Part of what each token offers to be found by. Where query and key agree, the head pays attention."],
  "attn.v": ["Value channel", "What a head copies from the tokens it pays attention to."],
  "attn.resid_delta": ["Attention write", "What the attention of this layer adds to one channel of the residual stream."],
  "mlp.act_in": ["MLP read", "A channel of the residual stream, as the MLP of this layer reads it."],
  "mlp.post_act": ["MLP neuron", "A hidden unit: it responds when the channels it reads line up with its weights."],
  "mlp.resid_delta": ["MLP write", "What the MLP of this layer adds to one channel of the residual stream."],
  final_resid: ["Final read", "A channel of the residual stream, as the last step reads it to score the answers."],
};

function kindOf(node) {
  const [title, words] = KINDS[node.site] ?? [node.site, ""];
  return { title, words };
}

function whereOf(node) {
  return isNumber(node.layer) ? `layer ${node.layer}` : "after the last layer";
}
