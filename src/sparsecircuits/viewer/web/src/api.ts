// Where data comes from: the server that sent the page, or the page itself when it is an offline file.
import type { Answers } from "./runs";
import { spelled } from "./state";
import type {
  CircuitList,
  CircuitRecord,
  Continued,
  Curve,
  Group,
  Groups,
  NodeDetails,
  Payload,
  Refusal,
  RunLoss,
  RunRequest,
  RunResult,
  Saved,
  SteerRequest,
  SteeringControls,
  SteeringCurves,
  Words,
} from "./types";

export class Refused extends Error {}
/** What was asked about is not what the server has now. */
export class Changed extends Refused {}
/** Nobody answers. */
export class Gone extends Refused {}

async function ask<T>(path: string, body?: unknown): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(
      path,
      body === undefined
        ? {}
        : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) },
    );
  } catch {
    throw new Gone("The server has gone. Start it again with “sparsecircuits view”: this page goes on by itself.");
  }
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let words = text.trim();
  try {
    words = (JSON.parse(text) as Refusal).error ?? words;
  } catch {
    /* plain text says it too */
  }
  throw new (answer.status === 409 ? Changed : Refused)(words || `The server answered ${answer.status}.`);
}

export interface Source {
  offline: boolean;
  list(): Promise<CircuitRecord[]>;
  payload(id: string, quick: boolean): Promise<Payload>;
  node(id: string, name: string): Promise<NodeDetails>;
  curve(id: string): Promise<Curve>;
  words(id: string): Promise<Words>;
  run(id: string, request: RunRequest): Promise<RunResult>;
  loss(id: string, request: RunRequest): Promise<RunLoss>;
  continued(id: string, request: RunRequest): Promise<Continued>;
  steer(id: string, request: SteerRequest): Promise<SteeringCurves>;
  steerControls(id: string, request: SteerRequest): Promise<SteeringControls>;
  saveGroups(id: string, groups: Groups): Promise<void>;
}

/** Whether two requests have the same answers; what else they want to see beside those may differ. */
export function sameRun(a: RunRequest, b: RunRequest): boolean {
  const key = ({ pair, prompt, patch_prompt: patch, scope, size, interventions }: RunRequest): string =>
    JSON.stringify([pair, prompt, patch, scope, size, interventions?.map(spelled)]);
  return key(a) === key(b);
}

const at = (id: string): string => `api/circuits/${encodeURIComponent(id)}`;

export const server: Source = {
  offline: false,
  list: async () => (await ask<CircuitList>("api/circuits")).circuits,
  payload: (id, quick) => ask(`${at(id)}${quick ? "?quick=1" : ""}`),
  node: (id, name) => ask(`${at(id)}/nodes/${encodeURIComponent(name)}`),
  words: (id) => ask(`${at(id)}/words`),
  curve: (id) => ask(`${at(id)}/curve`),
  run: (id, request) => ask(`${at(id)}/run`, request),
  loss: (id, request) => ask(`${at(id)}/loss`, request),
  continued: (id, request) => ask(`${at(id)}/continued`, request),
  steer: (id, request) => ask(`${at(id)}/steer`, request),
  steerControls: (id, request) => ask(`${at(id)}/steer/controls`, request),
  saveGroups: async (id, groups) => {
    await ask<Saved>(`${at(id)}/groups`, groups);
  },
};

/** What a page that was saved showed: its address, and the answers to what was asked about last. */
export interface Kept {
  hash: string;
  groups: Group[];
  names: Record<string, string>;
  request: RunRequest | null;
  answers: Answers;
}

/**
 * The data inside the page, and the answers that were kept with it. What else needs the model is refused, and says how
 * to have it.
 */
export function embedded(payload: Payload, kept: Kept | null): Source {
  const known = <T>(request: RunRequest, answer: T | null | undefined): T =>
    kept?.request && sameRun(request, kept.request) && answer ? answer : needsModel();
  const needsModel = (): never => {
    throw new Refused(
      "This is an offline page: it keeps what was recorded. To run the model, open the circuit with " +
        "“sparsecircuits view”.",
    );
  };
  const id = payload.id ?? payload.title;
  return {
    offline: true,
    list: async () => [
      {
        id,
        task: payload.title,
        run: payload.model?.name ?? "",
        model: payload.model?.name,
        model_id: payload.model?.id,
        n_nodes: payload.nodes.length,
        n_edges: payload.edges.length,
        loss: payload.summary?.loss,
        problem: null,
      },
    ],
    payload: async () => ({ ...payload, id, live: false }),
    node: async (_id, name) => payload.details?.[name] ?? needsModel(),
    words: async () => ({ nodes: payload.words ?? [] }),
    curve: async () => payload.curve ?? needsModel(),
    run: async (_id, request) => known(request, kept?.answers.result),
    loss: async (_id, request) => known(request, kept?.answers.loss),
    continued: async (_id, request) => known(request, kept?.answers.continued),
    steer: async () => needsModel(),
    steerControls: async () => needsModel(),
    saveGroups: async () => {
      /* kept in this page alone */
    },
  };
}
