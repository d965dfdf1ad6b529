/** Pages that an answer names, as models read them in files: [page 3], 3쪽, 第 3 页. What opens them is put in later. */

import type { MarkdownIt } from 'markdown-it';
import type { Token } from 'markdown-it';

const PAGE = /\[page (\d{1,4})\]|第 ?(\d{1,4}) ?页|(?<![\d.])(\d{1,4}) ?쪽/g;

export function pageMarks(md: MarkdownIt): void {
  md.core.ruler.push('pages', ({ tokens, Token }) => {
    for (const block of tokens) if (block.children) block.children = marked(block.children, Token);
  });
  md.renderer.rules['page_mark'] = (tokens, index) => {
    const { content, meta } = tokens[index]!;
    return `<span class="page-mark" data-page="${meta}">${md.utils.escapeHtml(content)}</span>`;
  };
}

function marked(tokens: Token[], Token: new (type: string, tag: string, nesting: 0) => Token): Token[] {
  const done: Token[] = [];
  let links = 0;
  const add = (type: string, content: string, meta?: string) => {
    if (content) done.push(Object.assign(new Token(type, '', 0), { content, meta }));
  };
  for (const token of tokens) {
    links += token.type === 'link_open' ? 1 : token.type === 'link_close' ? -1 : 0;
    if (token.type !== 'text' || links || token.content.search(PAGE) < 0) {
      done.push(token);
      continue;
    }
    let end = 0;
    for (const found of token.content.matchAll(PAGE)) {
      add('text', token.content.slice(end, found.index));
      add('page_mark', found[0], found[1] ?? found[2] ?? found[3]);
      end = found.index + found[0].length;
    }
    add('text', token.content.slice(end));
  }
  return done;
}
