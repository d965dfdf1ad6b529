/**
 * Formulas: $…$, \(…\) in a line; $$…$$, \[…\] on their own or in a line. They become elements of the class `math`
 * that hold their TeX as text; `enhance` draws them once they are complete.
 */

import type { MarkdownIt } from 'markdown-it';
import type { StateBlock, StateInline } from 'markdown-it';

const PAIRS: [open: string, close: string, isDisplay: boolean][] = [
  ['$$', '$$', true],
  ['\\[', '\\]', true],
  ['\\(', '\\)', false],
  ['$', '$', false],
];

export function math(md: MarkdownIt): void {
  md.inline.ruler.before('escape', 'math', inline);
  md.block.ruler.before('fence', 'math', block, { alt: ['paragraph', 'reference', 'blockquote', 'list'] });
  md.renderer.rules.math = (tokens, index) => {
    const { content, markup } = tokens[index]!;
    const display = markup === '$$' || markup === '\\[' ? ' display' : '';
    return `<span class="math${display}">${md.utils.escapeHtml(content)}</span>`;
  };
  md.renderer.rules.math_block = (tokens, index) =>
    `<div class="math display">${md.utils.escapeHtml(tokens[index]!.content)}</div>\n`;
}

function inline(state: StateInline, silent: boolean): boolean {
  for (const [open, close] of PAIRS) {
    if (!state.src.startsWith(open, state.pos)) continue;
    const start = state.pos + open.length;
    const end = closing(state.src, start, close);
    if (end < 0 || end >= state.posMax) continue;
    const content = state.src.slice(start, end);
    if (!content.trim() || (open === '$' && !isFormula(state.src, start, end))) continue;
    if (!silent) {
      const token = state.push('math', 'math', 0);
      token.content = content.trim();
      token.markup = open;
    }
    state.pos = end + close.length;
    return true;
  }
  return false;
}

function closing(text: string, from: number, close: string): number {
  for (let place = text.indexOf(close, from); place >= 0; place = text.indexOf(close, place + 1)) {
    if (close !== '$' && close !== '$$') return place;
    let slashes = 0;
    while (text[place - 1 - slashes] === '\\') slashes++;
    if (slashes % 2 === 0) return place;
  }
  return -1;
}

/** Prices are no formulas: what a dollar sign opens begins and ends without a space, and no digit follows. */
function isFormula(text: string, start: number, end: number): boolean {
  return (
    !/\s/.test(text[start]!) &&
    !/\s/.test(text[end - 1]!) &&
    !/\d/.test(text[end + 1] ?? '') &&
    !text.slice(start, end).includes('\n\n')
  );
}

function block(state: StateBlock, startLine: number, endLine: number, silent: boolean): boolean {
  const first = line(state, startLine);
  const open = first.startsWith('$$') ? '$$' : first.startsWith('\\[') ? '\\[' : '';
  if (!open) return false;
  const close = open === '$$' ? '$$' : '\\]';
  const lines: string[] = [];
  let rest = first.slice(2);
  for (let number = startLine; ; ) {
    const end = rest.indexOf(close);
    if (end >= 0) {
      if (rest.slice(end + 2).trim()) return false; // words after it: a line's formula
      lines.push(rest.slice(0, end));
      state.line = number + 1;
      break;
    }
    lines.push(rest);
    if (++number >= endLine || (state.sCount[number]! < state.blkIndent && !state.isEmpty(number))) {
      if (open === '$$' && number < endLine) return false;
      state.line = number; // not closed yet: as a fence, it goes on to the end
      break;
    }
    rest = line(state, number);
  }
  if (silent) return true;
  const token = state.push('math_block', 'math', 0);
  token.block = true;
  token.content = lines.join('\n').trim();
  token.map = [startLine, state.line];
  token.markup = open;
  return true;
}

function line(state: StateBlock, number: number): string {
  return state.src.slice(state.bMarks[number]! + state.tShift[number]!, state.eMarks[number]!);
}
