import { expect, test } from 'vitest';
import { Growing } from './blocks';
import { makeMarkdown } from './markdown';

const md = makeMarkdown();
const inline = (text: string) => md.renderInline(text);

test.each([
  ['**"강화학습"**은 어렵다', '<strong>&quot;강화학습&quot;</strong>은 어렵다'],
  ['**강화학습(RL)**은', '<strong>강화학습(RL)</strong>은'],
  ['这是**“注意”**的', '这是<strong>“注意”</strong>的'],
  ['**结论：**继续', '<strong>结论：</strong>继续'],
  ['**注意。**but', '<strong>注意。</strong>but'],
  ['값은 **`x`**이고', '값은 <strong><code>x</code></strong>이고'],
  ['*「강조」*와', '<em>「강조」</em>와'],
  ['𠮷**（例）**𠮷', '𠮷<strong>（例）</strong>𠮷'],
])('emphasis beside East Asian letters: %s', (text, html) => {
  expect(inline(text)).toBe(html);
});

test.each([
  ['a**"b"**c', 'a**&quot;b&quot;**c'],
  ['** no**', '** no**'],
  ['snake_case_name', 'snake_case_name'],
  ['**a**b', '<strong>a</strong>b'],
  ['2 * 3 * 4', '2 * 3 * 4'],
])('other emphasis is CommonMark’s: %s', (text, html) => {
  expect(inline(text)).toBe(html);
});

test.each([
  ['$x^2$', '<span class="math">x^2</span>'],
  ['\\(a<b\\)', '<span class="math">a&lt;b</span>'],
  ['값 \\[x\\] 끝', '값 <span class="math display">x</span> 끝'],
  ['it costs $5 and $10', 'it costs $5 and $10'],
  ['`$x$`', '<code>$x$</code>'],
  ['\\$5', '$5'],
  ['$a\\$b$', '<span class="math">a\\$b</span>'],
])('formulas in a line: %s', (text, html) => {
  expect(inline(text)).toBe(html);
});

test('boxes of things to do', () => {
  expect(md.render('- [ ] a\n- [x] b\n- [link](https://a.example)')).toMatch(/<li>☐ a<\/li>\n<li>☑ b<\/li>\n<li><a /);
  expect(md.render('[x] no item')).toBe('<p>[x] no item</p>\n');
});

test('formulas on lines of their own', () => {
  expect(md.render('$$\nx\n+y\n$$\nafter')).toBe('<div class="math display">x\n+y</div>\n<p>after</p>\n');
  expect(md.render('\\[ x \\]')).toBe('<div class="math display">x</div>\n');
  expect(md.render('- a\n\n  \\[x\\]\n')).toContain('<div class="math display">x</div>');
});

test('nothing is fetched and nothing runs', () => {
  expect(md.render('![a](https://evil.example/?q=1)')).not.toContain('<img');
  expect(md.render('<img src=x onerror=alert(1)>')).not.toContain('<img');
  expect(md.render('[a](javascript:alert(1))')).not.toContain('<a');
  expect(md.render('[a](https://b.example)')).toContain('rel="noopener noreferrer nofollow"');
});

test('an address ends before Chinese punctuation', () => {
  expect(inline('看https://example.com/a，然后')).toContain('>https://example.com/a</a>，然后');
});

const LONG = `# 제목\n\n**"말"**은 \`x\`\n\n- a\n- b\n\n  c\n\n\`\`\`python\nprint(1)\n\n\n# no\n\`\`\`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n\\[\nx\n\n\\]\n\n> q\nlazy\n\n1. x\n2. y\n\nend $a$`;

test('a text that grows letter by letter ends as the whole', () => {
  const growing = new Growing();
  for (let end = 1; end < LONG.length; end++) growing.update(LONG.slice(0, end), true);
  const html = growing.update(LONG, false).map((block) => block.html);
  expect(html.join('')).toBe(md.render(LONG));
});

test('what is done is not rendered again', () => {
  const growing = new Growing();
  const [first] = growing.update('one\n\ntwo', true);
  const later = growing.update('one\n\ntwo and more\n\nthree', true);
  expect(later[0]).toBe(first);
  expect(later.map((block) => block.done)).toEqual([true, true, false]);
});

test.each([
  ['see [page 3].', 'see <span class="page-mark" data-page="3">[page 3]</span>.'],
  ['12쪽과 第 4 页', '<span class="page-mark" data-page="12">12쪽</span>과 <span class="page-mark" data-page="4">第 4 页</span>'],
  ['**[page 1]**', '<strong><span class="page-mark" data-page="1">[page 1]</span></strong>'],
  ['`[page 3]`', '<code>[page 3]</code>'],
  ['[page x] [page 3', '[page x] [page 3'],
])('pages that are named are marked: %s', (text, html) => {
  expect(inline(text)).toBe(html);
});

test('a page that is a link already stays one', () => {
  expect(inline('[see [page 3]](https://example.com)')).not.toContain('page-mark');
});
