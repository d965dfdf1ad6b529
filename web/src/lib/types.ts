/** What the server and the page say to each other: the bodies of /api. */

export type Role = 'user' | 'assistant';
export type State = 'writing' | 'done' | 'truncated' | 'stopped' | 'interrupted' | 'failed';

export interface FilePage {
  number: number;
  text: string;
}

export interface DroppedFile {
  name: string;
  pages: FilePage[];
}

export interface Usage {
  prompt_tokens?: number;
  cached_tokens?: number;
  completion_tokens?: number;
  thought_tokens?: number;
  thought_seconds?: number;
  seconds?: number;
  tokens_per_second?: number | null;
}

export interface Message {
  id: string;
  parent: string | null;
  created: number; // seconds since 1970
  role: Role;
  text: string;
  thought: string;
  files: DroppedFile[];
  model: string;
  state: State;
  pair: string;
  usage: Usage;
  error: string;
  tokens?: number; // of an answer on its way: where to read on
}

export interface Head {
  id: string;
  created: number;
  updated: number;
  kept: boolean;
  title: string;
  leaf: string | null;
  folder: string;
  pinned: boolean;
  settings: Settings;
}

export interface Conversation extends Head {
  messages: Message[];
}

export interface Found extends Head {
  message: string;
  where: 'title' | 'text' | 'thought' | 'file';
  file: string; // its name
  excerpt: string;
}

export type Effort = 'low' | 'high' | 'max';

/** How to answer; what is not said is the model's own. */
export interface Settings {
  system?: string;
  thinking?: { type: 'enabled' | 'disabled' };
  reasoning_effort?: Effort;
  thinking_token_budget?: number;
  max_tokens?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  seed?: number;
}

export interface Model {
  name: string;
  context: number | null;
  defaults: Record<string, number>;
  traced: boolean; // the run that made it is here, with what it trained on
}

/** Where a span of an answer stands in the training data. */
export interface TraceDocument {
  sha256: string;
  place: string;
  source: string;
  licence: string;
  teacher: { stage: string | null; model: string | null } | null; // no stage: a model from elsewhere
  seen: { document: string; stage: string; kind: string; steps: number[]; learning_rates: number[] }[];
  before: string;
  after: string;
}

export interface TraceSpan {
  text: string;
  words: number;
  occurrences: number;
  num_documents: number;
  documents: TraceDocument[];
  evaluation: string[];
}

export interface Trace {
  run: string;
  min_words: number;
  num_spans: number;
  spans: TraceSpan[];
  documents_searched: number;
}

export interface Keeping {
  keeps: boolean;
  can_keep: boolean;
  place: string | null;
  sealed: boolean;
  locked: boolean;
}

export interface Delta {
  thought: string;
  answer: string;
  tokens: number;
  prompt_tokens: number;
  completion_tokens: number; // with those of what is continued
  thought_tokens: number;
}

export type Event =
  | Delta
  | { end: Message }
  | { error: { message: string } };
