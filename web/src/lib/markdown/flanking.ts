/**
 * Emphasis beside Korean particles and Chinese punctuation.
 *
 * CommonMark (0.31.2, section 6.2) lets a run of * open or close only where spaces or punctuation surround it, which
 * languages without spaces never give: **"말"**은 and 这是**“注意”**的 stay raw. Here an East Asian letter or mark
 * beside the run counts as the edge of a word, as a space would.
 */

import type { MarkdownIt } from 'markdown-it';

const EAST_ASIAN =
  /[\p{Script=Hangul}\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Bopomofo}\u3000-\u303f\uff00-\uffef]/u;

export function eastAsianEmphasis(md: MarkdownIt): void {
  const State = md.inline.State;
  const { isWhiteSpace, isPunctChar, isMdAsciiPunct } = md.utils;
  const isSpace = (c: string) => c === '' || isWhiteSpace(c.codePointAt(0)!);
  const isMark = (c: string) => isPunctChar(c) || isMdAsciiPunct(c.codePointAt(0)!) || /\p{S}/u.test(c);

  class EastAsianState extends State {
    override scanDelims(start: number, canSplitWord: boolean) {
      const marker = this.src[start]!;
      let end = start;
      while (end < this.posMax && this.src[end] === marker) end++;
      const before = characterBefore(this.src, start);
      const after = end < this.posMax ? String.fromCodePoint(this.src.codePointAt(end)!) : '';
      const isWideBefore = EAST_ASIAN.test(before);
      const isWideAfter = EAST_ASIAN.test(after);
      const isMarkBefore = before !== '' && isMark(before);
      const isMarkAfter = after !== '' && isMark(after);
      const opens =
        !isSpace(after) && (!isMarkAfter || isWideAfter || isSpace(before) || isMarkBefore || isWideBefore);
      const closes =
        !isSpace(before) && (!isMarkBefore || isWideBefore || isSpace(after) || isMarkAfter || isWideAfter);
      return {
        can_open: opens && (canSplitWord || !closes || isMarkBefore),
        can_close: closes && (canSplitWord || !opens || isMarkAfter),
        length: end - start,
      };
    }
  }
  md.inline.State = EastAsianState as typeof State;
}

function characterBefore(text: string, place: number): string {
  if (place === 0) return '';
  const low = text.charCodeAt(place - 1);
  const isPair = low >= 0xdc00 && low <= 0xdfff && place > 1;
  return isPair ? text.slice(place - 2, place) : text[place - 1]!;
}
