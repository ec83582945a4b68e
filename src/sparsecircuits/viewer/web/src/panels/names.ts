// What circuits are called where several stand side by side.
import type { App } from "../app";
import { count } from "../dom";
import type { CircuitRecord, Payload } from "../types";

const nodes = (record: CircuitRecord): string => `${count(record.n_nodes)} nodes`;
const hash = (record: CircuitRecord): string => record.id.split(".").at(-1)!.slice(0, 6);

/** Task and run, and as much more as tells it from the others: its size, or else the beginning of its hash. */
export function nameOf(record: CircuitRecord, all: CircuitRecord[], least = 2): string {
  const spelled = (each: CircuitRecord): string[] => [each.task, each.run, nodes(each), hash(each)];
  const own = spelled(record);
  const others = all.filter((each) => each !== record).map(spelled);
  let n = least;
  while (n < own.length && others.some((other) => other.slice(0, n).join() === own.slice(0, n).join())) n++;
  return own.slice(0, n).join(" · ");
}

/** The name of a circuit on show. */
export function nameOfShown(app: App, payload: Payload, id: string | null): string {
  const record = app.circuits.find((each) => each.id === id);
  return record ? nameOf(record, app.circuits) : payload.title;
}
