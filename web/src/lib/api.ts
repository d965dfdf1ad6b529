/** Asks the server. A failure is an `ApiError` with the server's own words. */

import type { Conversation, DroppedFile, Event, Found, Head, Keeping, Message, Model, Settings, Trace } from './types';

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code = '',
    readonly values: Record<string, string | number> = {},
  ) {
    super(message);
  }
}

/** Nobody answers: the server was ended, or the network is away. */
export class Unreachable extends Error {}

const KEY = 'clearseek-key';

export function setKey(key: string): void {
  sessionStorage.setItem(KEY, key);
}

async function ask(path: string, method = 'GET', body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers['Authorization'] = `Bearer ${key}`;
  let sent: BodyInit | undefined;
  if (body instanceof Blob) {
    headers['Content-Type'] = 'application/octet-stream';
    sent = body;
  } else if (body !== undefined) {
    headers['Content-Type'] = 'application/json';
    sent = JSON.stringify(body);
  }
  const response = await fetch(path, { method, headers, body: sent, signal, cache: 'no-store' }).catch((error) => {
    throw signal?.aborted ? error : new Unreachable();
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response: Response): Promise<ApiError> {
  try {
    const { message, code, values } = (await response.json()).error;
    return new ApiError(response.status, message, code ?? '', values);
  } catch {
    return new ApiError(response.status, response.statusText || String(response.status));
  }
}

async function json<T>(path: string, method = 'GET', body?: unknown): Promise<T> {
  return (await ask(path, method, body)).json();
}

const of = (id: string) => `/api/conversations/${encodeURIComponent(id)}`;

export const api = {
  models: () => json<Model[]>('/api/models'),
  history: () => json<Keeping>('/api/history'),
  setKeeps: (keeps: boolean) => json<Keeping>('/api/history', 'PUT', { keeps }),
  setPassphrase: (passphrase: string | null) => json<Keeping>('/api/history/passphrase', 'PUT', { passphrase }),
  unlock: (passphrase: string) => json<Keeping>('/api/history/unlock', 'POST', { passphrase }),
  lock: () => json<Keeping>('/api/history/lock', 'POST'),
  deleteAll: () => json<Keeping>('/api/history', 'DELETE'),
  conversations: () => json<Head[]>('/api/conversations'),
  search: (text: string) => json<Found[]>(`/api/search?text=${encodeURIComponent(text)}`),
  create: (settings: Settings, keep?: boolean) => json<Head>('/api/conversations', 'POST', { settings, keep }),
  open: (id: string) => json<Conversation>(of(id)),
  change: (id: string, change: Partial<Pick<Head, 'title' | 'folder' | 'pinned' | 'leaf' | 'settings'>> & { keep?: true }) =>
    json<Head>(of(id), 'PATCH', change),
  delete: (id: string) => json<unknown>(of(id), 'DELETE'),
  say: (id: string, text: string, parent: string | null, files: DroppedFile[]) =>
    json<Message>(`${of(id)}/messages`, 'POST', { text, parent, files }),
  answer: (
    id: string,
    asked: {
      parent?: string;
      message?: string;
      model: string;
      settings: Settings;
      pair?: string;
      answers_now?: boolean;
    },
  ) => json<Message>(`${of(id)}/answers`, 'POST', asked),
  act: (message: string, act: 'stop' | 'answer-now') => json<unknown>(`/api/answers/${message}/${act}`, 'POST'),
  trace: (model: string, text: string) => json<Trace>('/api/trace', 'POST', { model, text }),
  count: async (model: string, text: string, files: DroppedFile[] = []) =>
    (await json<{ tokens: number | null }>('/api/count', 'POST', { model, text, files })).tokens ?? 0,
  readFile: (file: File) => json<DroppedFile>(`/api/files?name=${encodeURIComponent(file.name)}`, 'POST', file),
  import: (file: File) => json<Head[]>('/api/import', 'POST', file),

  async export(form: 'md' | 'json' | 'jsonl', id?: string): Promise<Blob> {
    const one = id === undefined ? '' : `&id=${encodeURIComponent(id)}`;
    return (await ask(`/api/export?form=${form}${one}`)).blob();
  },

  /** What comes of an answer after its first `after` tokens. */
  async *watch(message: string, after: number, signal: AbortSignal): AsyncGenerator<Event> {
    const response = await ask(`/api/answers/${message}/events?after=${after}`, 'GET', undefined, signal);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let held = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const events = held.split('\n\n');
      held = events.pop()!;
      for (const event of events) if (event.startsWith('data: ')) yield JSON.parse(event.slice(6));
    }
  },
};
