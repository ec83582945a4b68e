// The layout beside the page, which stays awake while a large circuit is placed.
import { layoutGraph } from "./index";

addEventListener("message", (event: MessageEvent) => {
  const { number, graph, window, beside, before } = event.data;
  try {
    postMessage({ number, layout: layoutGraph(graph, window, beside, before) });
  } catch (error) {
    postMessage({ number, error: String(error) });
  }
});
