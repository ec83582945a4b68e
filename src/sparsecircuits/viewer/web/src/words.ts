// What a node fires on, in a few words for the picture.
import { shorten, visible } from "./dom";
import type { NodeWords, Payload } from "./types";

const LEAST_PRECISION = 0.5; // what is named must be what it fires on oftener than not
const LONGEST = 24;
const PLACES = { difference: "where pairs differ", onwards: "once pairs differ", last: "at the end" } as const;

/** "fires on ('"; null where no rule says it well enough. */
export function captionOf({ above, tokens, place, answer, precision }: NodeWords): string | null {
  if (precision === null || precision < LEAST_PRECISION) return null;
  if (place === null && !tokens.length) return null;
  const where = place === null ? `on ${tokens.map(visible).join(" ")}` : PLACES[place];
  const whose = answer === null ? "" : ` for ${visible(answer)}`;
  return shorten(`${above ? "fires" : "low"} ${where}${whose}`, LONGEST);
}

export const LEAST_PAIRS = 0.9; // of the pairs must be in one order for a node to be said to tell the answers apart

/** Which answer's prompts a node is higher for at the last token, and in what share of the pairs; null for neither. */
export function higherFor({ ends, answers }: Payload, name: string): { answer: string; share: number } | null {
  const share = ends?.higher[name];
  if (share === undefined || answers.length !== 2) return null;
  if (share >= LEAST_PAIRS) return { answer: answers[1].text, share };
  return share <= 1 - LEAST_PAIRS ? { answer: answers[0].text, share: 1 - share } : null;
}

/** What can be said of a node in few words: when it fires, or else which answer it is higher for. */
export function shortWords(payload: Payload, name: string): string | null {
  const words = payload.words?.find((each) => each.name === name);
  const higher = higherFor(payload, name);
  return (words && captionOf(words)) ?? (higher && shorten(`higher for ${visible(higher.answer)}`, LONGEST));
}

/** Captions by node; a name that the user gave says it better. */
export function captionsOf(payload: Payload, names: Record<string, string>): Record<string, string> {
  const found = payload.nodes.flatMap(({ name }): [string, string][] => {
    const caption = names[name] ? null : shortWords(payload, name);
    return caption === null ? [] : [[name, caption]];
  });
  return Object.fromEntries(found);
}
