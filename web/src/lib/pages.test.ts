import { expect, test } from 'vitest';
import { fileOf } from './pages';
import type { Message } from './types';

const file = (name: string, count: number) => ({
  name,
  pages: Array.from({ length: count }, (_, place) => ({ number: place + 1, text: '' })),
});
const said = (...files: ReturnType<typeof file>[]) => ({ files }) as unknown as Message;

test('the file that was given last has the page, unless it has too few', () => {
  const path = [said(file('a', 9)), said(), said(file('b', 2))];
  expect(fileOf(path, 2, '')?.name).toBe('b');
  expect(fileOf(path, 3, '')?.name).toBe('a');
  expect(fileOf(path, 10, '')).toBeUndefined();
});

test('of several files the one that was named is meant', () => {
  const path = [said(file('a.txt', 3), file('b.txt', 3))];
  expect(fileOf(path, 1, 'b.txt says, and a.txt says')?.name).toBe('a.txt');
  expect(fileOf(path, 1, '')?.name).toBe('b.txt');
});
