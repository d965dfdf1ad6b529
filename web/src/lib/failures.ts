/** What goes wrong, in the reader's language: by the server's code, else by the status, else in the server's words. */

import { ApiError, Unreachable } from './api';
import { number, t } from './words.svelte';
import type { Words } from './words/en';

const WORDS: Record<string, keyof Words> = {
  context_length_exceeded: 'contextFull',
  conversation_not_found: 'conversationGone',
  engine_failed: 'engineFailed',
  file_broken: 'fileBroken',
  file_empty: 'fileEmpty',
  file_encoding: 'fileEncoding',
  file_encrypted: 'fileEncrypted',
  file_of_no_text: 'fileNoText',
  file_of_too_many_pages: 'fileTooManyPages',
  file_too_long: 'fileTooLong',
  file_without_text: 'fileWithoutText',
  history_locked: 'historyLocked',
  import_broken: 'importBroken',
  import_unknown: 'importUnknown',
  model_not_found: 'modelGone',
  model_not_opened: 'modelNotOpened',
  no_answer_in_time: 'noAnswerInTime',
  rate_limit_exceeded: 'busy',
  request_too_large: 'tooLarge',
  server_ending: 'serverEnding',
  wrong_passphrase: 'wrongPassphrase',
};

/** A failure in words; `name` is the file that it is about. */
export function wordsOf(error: unknown, name = ''): string {
  if (error instanceof Unreachable) return t('unreachable');
  if (!(error instanceof ApiError)) return error instanceof Error ? error.message : String(error);
  const known = WORDS[error.code];
  const said = known ? t(known, told({ name, ...error.values })) : error.status >= 500 ? t('serverFailed') : error.message;
  return !name || said.includes(name) ? said : `${name}: ${said}`;
}

/** Why an answer failed: the server wrote down a code, or words of its own. */
export function whyFailed(error: string): string {
  const known = WORDS[error];
  return known ? t(known) : error;
}

function told(values: Record<string, string | number>): Record<string, string | number> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, typeof value === 'number' ? number(value) : value]),
  );
}
