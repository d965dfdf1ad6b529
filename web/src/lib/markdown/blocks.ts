/**
 * A text that grows, as rendered blocks. What lies before the last block is frozen: it is neither parsed nor rendered
 * again, so that a long answer costs no more per token than a short one.
 */

import type { MarkdownIt } from 'markdown-it';
import type { Token } from 'markdown-it';
import { makeMarkdown } from './markdown';

export interface Block {
  key: number;
  html: string;
  done: boolean; // it will not change any more
}

let shared: MarkdownIt | undefined;

export class Growing {
  #blocks: Block[] = [];
  #frozen = ''; // the text of the blocks that are done
  #env: Record<string, unknown> = {}; // link definitions seen so far

  /** The blocks of `text`; `live`: more of it may come. Blocks that didn't change are the same objects as before. */
  update(text: string, live: boolean): Block[] {
    const md = (shared ??= makeMarkdown());
    if (!text.startsWith(this.#frozen) || (!live && /^ {0,3}\[[^\]]+\]:/m.test(text))) this.#reset();
    const done = this.#blocks.filter((block) => block.done);
    const rest = text.slice(this.#frozen.length);
    const groups = split(md.parse(rest, this.#env));
    const fresh = groups.map((tokens, place) => ({
      key: done.length + place,
      html: md.renderer.render(tokens, md.options, this.#env),
      done: !live || place < groups.length - 1,
    }));
    if (groups.length > 1 || !live) this.#freeze(rest, groups, live);
    this.#blocks = [...done, ...fresh];
    return this.#blocks;
  }

  #freeze(rest: string, groups: Token[][], live: boolean): void {
    const start = groups.at(-1)?.[0]?.map?.[0] ?? 0;
    this.#frozen += live ? rest.slice(0, offsetOf(rest, start)) : rest;
  }

  #reset(): void {
    this.#blocks = [];
    this.#frozen = '';
    this.#env = {};
  }
}

/** Tokens of each block at the top. */
function split(tokens: Token[]): Token[][] {
  const groups: Token[][] = [];
  let depth = 0;
  for (const token of tokens) {
    if (depth === 0) groups.push([]);
    groups.at(-1)!.push(token);
    depth += token.nesting;
  }
  return groups;
}

function offsetOf(text: string, line: number): number {
  let place = 0;
  for (let number = 0; number < line; number++) place = text.indexOf('\n', place) + 1;
  return place;
}
