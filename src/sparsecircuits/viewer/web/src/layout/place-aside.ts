// Runs the layout in a worker; small circuits, and pages that may not start one, are placed at once.
import type { Graph, Layout, Stood } from "./graph";
import { type Window, layoutGraph } from "./index";
import LayoutWorker from "./worker?worker&inline";

const SMALL = 150; // nodes that are placed in less time than a worker needs to start
let worker: Worker | null | undefined;
let last = 0;

function start(): Worker | null {
  if (worker !== undefined) return worker;
  try {
    worker = new LayoutWorker();
    worker.addEventListener("error", () => {
      worker = null;
    });
  } catch {
    worker = null;
  }
  return worker;
}

export async function placeAside(
  graph: Graph,
  window: Window,
  beside: Graph | null,
  before: Stood | null,
): Promise<Layout> {
  const aside = graph.nodes.length > SMALL ? start() : null;
  if (!aside) return layoutGraph(graph, window, beside, before);
  const number = ++last;
  return new Promise((resolve) => {
    const here = (): void => {
      done();
      resolve(layoutGraph(graph, window, beside, before));
    };
    const answer = (event: MessageEvent): void => {
      if (event.data.number !== number) return;
      if (event.data.error) {
        here();
        return;
      }
      done();
      resolve(event.data.layout);
    };
    const done = (): void => {
      aside.removeEventListener("message", answer);
      aside.removeEventListener("error", here);
    };
    aside.addEventListener("message", answer);
    aside.addEventListener("error", here);
    aside.postMessage({ number, graph, window, beside, before });
  });
}
