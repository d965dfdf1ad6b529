/** Which file's page an answer means where it names one. */

import { getContext, setContext } from 'svelte';
import type { DroppedFile, Message } from './types';

const KEY = Symbol('pages');

/** What opens the page `number` that is named behind `before`; undefined where no file has it. */
export type Opener = (number: number, before: string) => (() => void) | undefined;

export const setOpener = (opener: Opener) => setContext(KEY, opener);
export const getOpener = () => getContext<Opener | undefined>(KEY);

/**
 * The file with that page that was given last before the answer; of several at once the one that the answer named last,
 * else the last one. `path`: from the first message on.
 */
export function fileOf(path: Message[], number: number, before: string): DroppedFile | undefined {
  for (const { files } of [...path].reverse()) {
    const having = files.filter((one) => one.pages.some((page) => page.number === number));
    const named = having.map((one) => before.lastIndexOf(one.name));
    if (having.length) return having[named.lastIndexOf(Math.max(...named))];
  }
  return undefined;
}
