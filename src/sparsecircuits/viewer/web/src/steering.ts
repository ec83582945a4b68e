// What the server is asked about steering while its panel is open: the curves of the nodes and prompts on show, and,
// once a person does not go on choosing, their controls. The slider reads from what came.
import { Gone } from "./api";
import type { App } from "./app";
import { partsOf } from "./selection";
import type { SteerRequest, SteeringControls, SteeringCurves } from "./types";

/** What came of one request; null: not yet. */
export interface Steered {
  curves: SteeringCurves | null;
  controls: SteeringControls | null;
  /** Why there are none. */
  trouble: string | null;
}

const REST = 250; // ms after which a person does not go on choosing: controls take twice as long as the curves
const READ = /^(?:\d+\.(?:attn|mlp)\.act_in|final_resid)\.\d+$/;

export class Steering {
  private known = new Map<string, Steered>();
  private busy = false;

  constructor(private readonly app: App) {}

  /** Nothing of the circuit before is kept. */
  forget(): void {
    this.known.clear();
  }

  /** Nodes of the selection that a dense model can be steered from. */
  selected(): string[] {
    const { selected } = this.app.state;
    const parts = partsOf(selected).flatMap((id) =>
      id.startsWith("group:") ? (this.app.groupNamed(id.slice(6))?.nodes ?? []) : [id],
    );
    return parts.filter((name) => READ.test(name));
  }

  /** What the panel shows; null where nothing is chosen, or nothing can be steered. */
  request(): SteerRequest | null {
    const { state, payload, changed } = this.app;
    const { nodes, toward, over } = state.steer;
    if (changed !== null || !payload?.live || !payload.steering || payload.steering.problem) return null;
    const chosen = nodes === "circuit" ? [] : this.selected();
    if (nodes === "selected" && !chosen.length) return null;
    const where = { nodes: chosen, toward, over };
    if (over === "task") return where;
    const { pair, prompt, patch } = state;
    return prompt === null ? { ...where, pair } : { ...where, prompt, patch_prompt: patch };
  }

  /** What came of the request on show. */
  get shown(): Steered | null {
    const request = this.request();
    return request && (this.known.get(this.keyOf(request)) ?? null);
  }

  /** Asks for what is on show and not known. */
  ask(): void {
    if (!this.busy) void this.askUntilKnown();
  }

  private keyOf(request: SteerRequest): string {
    return JSON.stringify([this.app.state.circuit, request]);
  }

  private async askUntilKnown(): Promise<void> {
    this.busy = true;
    while (await this.askOnce());
    this.busy = false;
  }

  /** Whether there may be more to ask. */
  private async askOnce(): Promise<boolean> {
    const { app } = this;
    const request = this.request();
    if (request === null || app.state.drawer !== "steer") return false;
    const [id, key] = [app.state.circuit, this.keyOf(request)];
    const before = this.known.get(key);
    if (before?.trouble || before?.controls) return false;
    if (before) {
      await new Promise((resolve) => setTimeout(resolve, REST));
      const now = this.request();
      if (!now || this.keyOf(now) !== key) return true;
    }
    const found = before ?? { curves: null, controls: null, trouble: null };
    try {
      if (before) this.known.set(key, { ...found, controls: await app.source.steerControls(id, request) });
      else this.known.set(key, { ...found, curves: await app.source.steer(id, request) });
    } catch (error) {
      const trouble = id === app.state.circuit ? app.failed(error) : "";
      if (error instanceof Gone || !trouble) return false; // asked again when the server is back
      this.known.set(key, { ...found, trouble });
    }
    app.tell();
    return true;
  }
}
