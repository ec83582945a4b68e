// What the model is asked after each change, in the order that one waits for it: the answers on the prompts at once,
// then the loss over the task, then how the prompts go on. Of changes that follow fast, the last is asked about.
import type { App } from "./app";
import { parseNode } from "./dom";
import type { Continued, RunLoss, RunRequest, RunResult } from "./types";

/** Answers that came of one request; what has not come yet is null. */
export interface Answers {
  result: RunResult | null;
  loss: RunLoss | null;
  continued: Continued | null;
}

const REST = 200; // ms after which a person does not go on changing things: the text takes a dozen passes
const NONE: Answers = { result: null, loss: null, continued: null };

export class Runs {
  answers = NONE;
  trouble: string | null = null;
  running = false;
  /** When what is asked about was changed, and how long it took from there until its answers were on the page; ms. */
  private began = 0;
  private number = 0;
  private busy = false;

  constructor(private readonly app: App) {}

  /** Nothing of the circuit before is kept. */
  forget(): void {
    this.number++; // an answer on its way is to a question that nobody asks any more
    this.answers = NONE;
    this.trouble = null;
    this.running = false;
  }

  /** Whether the state differs from what was recorded. */
  get needed(): boolean {
    const { touch, prompt, size } = this.app.state;
    return touch.length > 0 || prompt !== null || size !== null;
  }

  /** Whether it changes anything: a typed prompt alone does not. */
  get changes(): boolean {
    return this.app.state.touch.length > 0 || this.app.state.size !== null;
  }

  /** Nodes outside the circuit that the panel wants to see on the prompt. */
  watched(): string[] {
    const { payload, state } = this.app;
    if (!state.selected || payload?.live !== true) return [];
    const node = payload.nodes.find(({ name }) => name === state.selected) ?? null;
    if (state.compare !== null && !node) return []; // the right circuit's, or the other model's
    const outside = !state.selected.includes(":") && !node?.activations?.length && parseNode(state.selected);
    return outside ? [state.selected] : [];
  }

  /** Asks about the state as it is now; answers to another one are not shown meanwhile. */
  ask(another: boolean): void {
    this.number++;
    if (another) this.answers = NONE;
    const { payload, changed } = this.app;
    if (!payload || changed !== null) return;
    if (!this.needed && !this.watched().length) {
      this.forget();
      this.app.tell();
      return;
    }
    this.began = performance.now();
    this.running = true;
    if (!this.busy) window.setTimeout(() => void this.askUntilCurrent()); // once the change is whole
  }

  /** One request at a time; what follows it waits for nobody. */
  private async askUntilCurrent(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    for (let asked = -1; asked !== this.number && this.running;) {
      asked = this.number;
      await this.askOnce(asked);
    }
    this.busy = false;
  }

  /** What is asked about now. */
  request(): RunRequest {
    const { pair, prompt, patch, scope, size, touch, selected } = this.app.state;
    return {
      pair,
      prompt,
      patch_prompt: patch,
      scope: size !== null ? "circuit" : scope,
      size,
      interventions: touch,
      watch: this.watched(),
      heads: selected?.startsWith("head:") ? [selected.slice(5).split(".").map(Number) as [number, number]] : [],
    };
  }

  private async askOnce(number: number): Promise<void> {
    const { source, state } = this.app;
    const [id, request] = [state.circuit, this.request()];
    await this.guarded(number, async () => {
      const result = await source.run(id, request);
      if (number !== this.number) return;
      await this.take({ ...NONE, result });
      performance.measure("round trip", { start: this.began, end: performance.now() });
      if (this.needed) void this.guarded(number, () => this.follow(number, id, { ...request, watch: [], heads: [] }));
    });
  }

  /** What can wait: it stops as soon as something else is asked about. */
  private async follow(number: number, id: string, request: RunRequest): Promise<void> {
    const { source } = this.app;
    if (this.changes) {
      const loss = await source.loss(id, request);
      if (number !== this.number) return;
      await this.take({ ...this.answers, loss });
    }
    await new Promise((resolve) => setTimeout(resolve, REST));
    if (number !== this.number) return;
    const continued = await source.continued(id, request);
    if (number === this.number) await this.take({ ...this.answers, continued });
  }

  /** Does it, and says what failed unless something else is asked about by then. */
  private async guarded(number: number, act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (number !== this.number) return;
      this.running = false;
      this.trouble = this.app.failed(error);
      this.app.tell();
    }
  }

  private async take(answers: Answers): Promise<void> {
    const first = this.answers.result !== answers.result;
    this.answers = answers;
    this.trouble = null;
    this.running = false;
    if (first && this.app.state.flow) await this.app.redraw();
    this.app.tell();
  }
}
