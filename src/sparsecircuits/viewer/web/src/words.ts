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

/** Captions by node; a name that the user gave says it better. */
export function captionsOf(payload: Payload, names: Record<string, string>): Record<string, string> {
  const found = (payload.words ?? []).flatMap((words): [string, string][] => {
    const caption = names[words.name] ? null : captionOf(words);
    return caption === null ? [] : [[words.name, caption]];
  });
  return Object.fromEntries(found);
}
