// Where heads look from the last token, on the prompts that were recorded.
import { isNumber, percent, visible } from "./dom";
import type { Payload } from "./types";

export interface Look {
  token: string;
  /** Of the attention, on the mean prompt. */
  share: number;
}

const LEAST = 0.1; // of the attention: of less nobody would say that a head looks there
const MOST = 3;

/** The tokens that a head looks at from the last one, in the circuit alone; null where no pattern was recorded. */
export function looksOf(payload: Payload, layer: number, head: number): Look[] | null {
  const patterns = payload.attention?.find((each) => each.layer === layer && each.head === head)?.patterns;
  const prompts = payload.prompts ?? [];
  if (!patterns?.length || patterns.length !== prompts.length) return null;
  const shares = new Map<string, number>();
  patterns.forEach((pattern, i) => {
    pattern.at(-1)?.forEach((share, place) => {
      const token = prompts[i].tokens[place];
      if (isNumber(share)) shares.set(token, (shares.get(token) ?? 0) + share / patterns.length);
    });
  });
  return [...shares]
    .map(([token, share]) => ({ token, share }))
    .filter(({ share }) => share >= LEAST)
    .sort((a, b) => b.share - a.share)
    .slice(0, MOST);
}

/** "·(' 36.0%, ·(" 35.1%". */
export const lookWords = (looks: Look[]): string =>
  looks.map(({ token, share }) => `${visible(token)} ${percent(share)}`).join(", ");

/** The words beside a head's number, by layer and head. */
export function looksByHead(payload: Payload): Record<string, string> {
  return Object.fromEntries(
    (payload.attention ?? []).flatMap(({ layer, head }): [string, string][] => {
      const looks = looksOf(payload, layer, head);
      return looks?.length ? [[`${layer}.${head}`, looks.map(({ token }) => visible(token)).join(" ")]] : [];
    }),
  );
}
