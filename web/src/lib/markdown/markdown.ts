/** Markdown as models write it: no HTML, no remote images, links that say where they lead. */

import MarkdownIt, { type MarkdownIt as Markdown } from 'markdown-it';
import type { Token } from 'markdown-it';
import { eastAsianEmphasis } from './flanking';
import { math } from './math';
import { pageMarks } from './pages';

/** Where a bare address ends though no space follows: marks of Chinese and Japanese prose. */
const AFTER_ADDRESS = /[\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65“”‘’]/;

export function makeMarkdown(): Markdown {
  const md = new MarkdownIt({ html: false, linkify: true, breaks: false });
  md.use(eastAsianEmphasis).use(math).use(pageMarks);
  md.core.ruler.push('tasks', ({ tokens }) => tokens.forEach((_, index) => markTask(tokens, index)));
  md.validateLink = (address) => /^(https?:|mailto:|#)/i.test(address.trim());
  const match = md.linkify.match.bind(md.linkify);
  md.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
  md.linkify.match = (text) =>
    match(text)?.map((found) => {
      const end = found.text.search(AFTER_ADDRESS);
      if (end < 0) return found;
      const text = found.text.slice(0, end);
      return Object.assign(found, { text, raw: text, url: text, lastIndex: found.index + end });
    }) ?? null;
  const { escapeHtml } = md.utils;
  md.renderer.rules.link_open = (tokens, index, options, _, self) => {
    const token = tokens[index]!;
    const href = String(token.attrGet('href') ?? '');
    if (!href.startsWith('#')) {
      token.attrSet('target', '_blank');
      token.attrSet('rel', 'noopener noreferrer nofollow');
      token.attrSet('title', href);
    }
    return self.renderToken(tokens, index, options);
  };
  // A picture that is fetched tells its server what was said; so only its words are shown, and where it would be.
  md.renderer.rules.image = (tokens, index) => {
    const token = tokens[index]!;
    const source = String(token.attrGet('src') ?? '');
    const text = escapeHtml(token.content || source);
    const link = `<a href="${escapeHtml(source)}" target="_blank" rel="noopener noreferrer nofollow" title="${escapeHtml(source)}">${text}</a>`;
    return `<span class="picture">${/^https?:/i.test(source) ? link : text}</span>`;
  };
  const code = (content: string, language: string) =>
    `<figure class="code" data-language="${escapeHtml(language)}"><pre tabindex="0"><code>${escapeHtml(content)}</code></pre></figure>\n`;
  md.renderer.rules.fence = (tokens, index) => {
    const { content, info } = tokens[index]!;
    return code(content, info.trim().split(/\s+/)[0] ?? '');
  };
  md.renderer.rules.code_block = (tokens, index) => code(tokens[index]!.content, '');
  md.renderer.rules.table_open = () => '<div class="table" tabindex="0" role="group"><table>\n';
  md.renderer.rules.table_close = () => '</table></div>\n';
  return md;
}

/** Boxes of a list of things to do: [ ] and [x] at an item's beginning. */
function markTask(tokens: Token[], index: number): void {
  const first = tokens[index]!.children?.[0];
  if (tokens[index - 2]?.type !== 'list_item_open' || first?.type !== 'text') return;
  const box = /^\[([ xX])\] /.exec(first.content);
  if (box) first.content = `${box[1] === ' ' ? '☐' : '☑'} ${first.content.slice(4)}`;
}
