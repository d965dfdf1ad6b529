import { expect, test } from 'vitest';
import { languageOf, preferred } from './language';
import { branch, leafBelow, pairOf, siblings, treeOf } from './tree';
import type { Message } from './types';

const message = (id: string, parent: string | null, pair = '') => ({ id, parent, pair }) as Message;
const messages = [
  message('q', null), message('a', 'q'), message('b', 'q', 'p'), message('c', 'q', 'p'),
  message('d', 'b'), message('e', 'd'), message('r', null),
];
const tree = treeOf(messages);
const ids = (list: Message[]) => list.map((one) => one.id).join('');

test('branches', () => {
  expect(ids(branch(tree, 'e'))).toBe('qbde');
  expect(branch(tree, 'nowhere')).toEqual([]);
  expect(branch(tree, null)).toEqual([]);
  expect(ids(siblings(tree, messages[1]!))).toBe('abc');
  expect(ids(siblings(tree, messages[0]!))).toBe('qr');
  expect(leafBelow(tree, messages[0]!)).toBe('c');
  expect(leafBelow(tree, messages[2]!)).toBe('e');
  expect(ids(pairOf(tree, messages[2]!))).toBe('bc');
  expect(ids(pairOf(tree, messages[1]!))).toBe('a');
});

test.each([
  ['강화학습(reinforcement learning)은 어렵다', 'ko'],
  ['首先，我们用 GRPO 训练', 'zh-Hans'],
  ['これは漢字です', 'ja'],
  ['The word 강화 means', 'en'],
  ['12 + 5', undefined],
])('the language of %s', (text, tag) => {
  expect(languageOf(text)).toBe(tag);
});

test('the first language that the page speaks', () => {
  expect(preferred(['fr-FR', 'zh-TW', 'ko'])).toBe('zh');
  expect(preferred(['ko-KR'])).toBe('ko');
  expect(preferred(['fr'])).toBe('en');
});
