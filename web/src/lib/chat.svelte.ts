/** What the page shows and does: the conversation that is open, answers on their way, the list of the others. */

import { api, ApiError } from './api';
import { wordsOf } from './failures';
import { branch, leafBelow, pairOf, treeOf } from './tree';
import type {
  Conversation, Delta, DroppedFile, Event, Head, Keeping, Message, Model, Settings, State, Usage,
} from './types';

const FLUSH_MS = 50; // what comes of an answer within so long is shown together

/** A message, of which only what can change is watched: a conversation may have thousands. */
class Turn implements Message {
  id!: string;
  parent!: string | null;
  created!: number;
  role!: Message['role'];
  files!: DroppedFile[];
  model!: string;
  pair!: string;
  tokens?: number;
  text = $state('');
  thought = $state('');
  state = $state<State>('done');
  usage = $state.raw<Usage>({});
  error = $state('');

  constructor(message: Message) {
    Object.assign(this, message);
  }
}

const RETRY_MS = [300, 1000, 2000, 4000];

class Chat {
  models = $state<Model[]>([]);
  model = $state('');
  second = $state(''); // what is compared with; empty: nothing
  keeping = $state<Keeping>({ keeps: false, can_keep: false, place: null, sealed: false, locked: false });
  heads = $state<Head[]>([]);
  open = $state<Conversation | null>(null);
  settings = $state<Settings>({}); // of the conversation that is open, or of the next one
  temporary = $state(false); // the next conversation is not kept
  failure = $state('');
  needsKey = $state(false);
  offline = $state(false);
  ready = $state(false);
  news = $state(0); // grows when a message was added: the reader is taken to the end
  sought = $state(''); // a message that was searched for: the reader is taken to it
  soughtThought = $state(''); // that of a message which is unfolded, as it was found there
  turned = $state.raw<{ id: string; step: 1 | -1 }>(); // the version that the reader turned to, and which way
  asked = $state(''); // where a model was asked and has not begun: it may have to be read from the disk first
  begun: Record<string, number> = {}; // when answers on their way began, by the page's clock (ms)
  #held = new Map<string, Delta>();
  #refreshes = 0;
  #watching = new Map<string, AbortController>();
  #tabs = new BroadcastChannel('clearseek'); // tells other tabs which conversation has changed, nothing of it

  tree = $derived(treeOf(this.open?.messages ?? []));
  path = $derived(branch(this.tree, this.open?.leaf ?? null));
  writing = $derived((this.open?.messages ?? []).filter((one) => one.state === 'writing'));
  asking = $derived(this.asked !== '' && this.asked === this.open?.id);
  isBusy = $derived(this.asking || this.writing.length > 0);
  unanswered = $derived(!this.isBusy && this.path.at(-1)?.role === 'user' ? this.path.at(-1) : undefined);
  current = $derived(this.models.find((one) => one.name === this.model));

  constructor() {
    this.#tabs.onmessage = ({ data }) => void this.meet(data);
    document.addEventListener('visibilitychange', () => !document.hidden && this.ready && void this.meet(this.open?.id));
  }

  /** Another tab, or this one after a rest, sees what has become of a conversation elsewhere. */
  private async meet(id?: string): Promise<void> {
    if (this.failure) return; // it was not read yet
    await this.try(async () => {
      await this.refresh();
      if (id && this.open?.id === id && !this.isBusy) await this.again(id);
    });
  }

  /** Read the open conversation again, where it has grown. */
  private async again(id: string): Promise<void> {
    const whole = await api.open(id);
    if (this.open?.id !== id || this.isBusy) return;
    const isSame = whole.messages.every((one) => this.find(one.id)?.state === one.state);
    if (isSame && whole.messages.length === this.open.messages.length) return;
    const { leaf } = this.open;
    this.open = { ...whole, messages: whole.messages.map((one) => new Turn(one)) };
    if (leaf && !this.path.some((one) => one.id === leaf)) this.open.leaf = leaf; // the reader is on another branch
    else this.news++;
    for (const message of this.writing) void this.watch(message.id);
  }

  async start(): Promise<void> {
    await this.try(async () => {
      this.models = await api.models();
      this.model = this.model || this.models[0]?.name || '';
      this.keeping = await api.history();
      await this.refresh();
      this.needsKey = false;
      await this.follow();
      this.ready = true;
    });
  }

  /** Open what the address names. */
  async follow(): Promise<void> {
    const id = /^#\/c\/([\w-]+)$/.exec(location.hash)?.[1];
    if (id && id !== this.open?.id) await this.show(id);
    else if (!id) this.leave();
  }

  async refresh(): Promise<void> {
    const turn = ++this.#refreshes;
    const heads = await api.conversations();
    if (turn === this.#refreshes) this.heads = heads; // what was asked later is newer, whichever comes first
  }

  /** Open a conversation, at a message, or its thought, where one was searched for. */
  async show(id: string, message = '', isThought = false): Promise<void> {
    this.unwatch();
    try {
      const whole = await api.open(id);
      this.open = { ...whole, messages: whole.messages.map((one) => new Turn(one)) };
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return this.fresh();
      throw error;
    }
    this.settings = this.open.settings;
    const sought = this.find(message);
    if (sought && !this.path.includes(sought)) await this.choose(sought);
    const last = this.path.at(-1)?.model;
    if (last && this.models.some((one) => one.name === last)) this.model = last;
    if (location.hash !== `#/c/${id}`) history.pushState(null, '', `#/c/${id}`);
    for (const message of this.writing) void this.watch(message.id);
    this.sought = sought?.id ?? '';
    this.soughtThought = isThought ? this.sought : '';
    this.news++;
  }

  /** An empty page for a new conversation. */
  fresh(temporary = false): void {
    if (location.hash) history.pushState(null, '', location.pathname);
    this.leave();
    this.temporary = temporary;
  }

  private leave(): void {
    this.unwatch();
    this.open = null;
    this.settings = { ...this.settings, system: undefined };
  }

  private unwatch(): void {
    for (const one of this.#watching.values()) one.abort();
    this.#watching.clear();
  }

  find(id: string): Message | undefined {
    return this.open?.messages.find((one) => one.id === id);
  }

  /** Say something at the end of the branch that is shown, and have it answered. */
  async send(text: string, files: DroppedFile[]): Promise<boolean> {
    return this.try(async () => {
      if (!this.open) {
        const head = await api.create(this.cleanSettings(), this.temporary ? false : undefined);
        this.open = { ...head, messages: [] };
        this.settings = this.open.settings;
        history.pushState(null, '', `#/c/${head.id}`);
      }
      // what was left without an answer, as the model could not be asked, is said anew beside it
      await this.say(text, this.unanswered ? this.unanswered.parent : this.open.leaf, files);
    });
  }

  /** Say something else in place of `message`: a branch beside it. */
  async edit(message: Message, text: string): Promise<boolean> {
    return this.try(() => this.say(text, message.parent, message.files));
  }

  private async say(text: string, parent: string | null, files: DroppedFile[]): Promise<void> {
    const open = this.open!;
    const said = await api.say(open.id, text, parent, files);
    open.messages.push(new Turn(said));
    open.leaf = said.id;
    open.title ||= text.trim().split('\n')[0]!.slice(0, 60) || files[0]?.name || '';
    this.sought = '';
    this.news++;
    await this.ask(said.id);
  }

  /** Ask again where asking failed. */
  async retry(message: Message): Promise<void> {
    await this.try(() => this.ask(message.id));
  }

  /** Another answer beside `message`. */
  async regenerate(message: Message): Promise<void> {
    await this.try(() => this.ask(message.parent!));
  }

  private async ask(parent: string): Promise<void> {
    const names = this.second && this.second !== this.model ? [this.model, this.second] : [this.model];
    const pair = names.length > 1 ? `${parent}-${this.tree.children.get(parent)?.length ?? 0}` : '';
    const id = this.open!.id;
    this.asked = id;
    try {
      for (const model of names) {
        const settings = this.cleanSettings();
        const answer = await api.answer(id, { parent, model, settings, pair });
        if (this.open?.id === id) this.take(answer); // the reader may have gone elsewhere while the model was read
      }
    } finally {
      if (this.asked === id) this.asked = '';
      this.#tabs.postMessage(id);
      void this.refresh().catch(() => undefined); // the question is there, even where nobody answers
    }
    if (pair && this.open?.id === id) await this.choose(pairOf(this.tree, this.path.at(-1)!)[0]!);
    if (this.current?.context === null) this.models = await api.models(); // now that it is open, it says
  }

  /** Go on where an answer ended; behind its thought, where it is to answer now. */
  async continue(message: Message, answersNow = false): Promise<void> {
    await this.try(async () => {
      const model = this.models.some((one) => one.name === message.model) ? message.model : this.model;
      const asked = { message: message.id, model, settings: this.cleanSettings(), answers_now: answersNow };
      this.take(await api.answer(this.open!.id, asked));
    });
  }

  private take(message: Message): void {
    const messages = this.open!.messages;
    const place = messages.findIndex((one) => one.id === message.id);
    if (place < 0) messages.push(new Turn(message));
    else messages[place] = new Turn(message);
    this.open!.leaf = message.id;
    this.begun[message.id] = performance.now();
    this.news++;
    void this.watch(message.id);
  }

  /** Read an answer as it is written; where the connection breaks, from where it broke. */
  private async watch(id: string): Promise<void> {
    const conversation = this.open!.id;
    const aborter = new AbortController();
    this.#watching.get(id)?.abort();
    this.#watching.set(id, aborter);
    this.begun[id] ??= performance.now() - (Date.now() - this.find(id)!.created * 1000);
    for (let tries = 0; this.find(id)?.state === 'writing' && !aborter.signal.aborted; tries++) {
      try {
        for await (const event of api.watch(id, this.find(id)!.tokens ?? 0, aborter.signal)) {
          if (aborter.signal.aborted) return;
          tries = 0;
          this.offline = false;
          if ('end' in event || 'error' in event) this.read(id, event);
          else this.gather(id, event);
        }
      } catch (error) {
        if (aborter.signal.aborted) return;
        if (error instanceof ApiError && error.status === 404) return this.reload(conversation, id);
      }
      if (this.find(id)?.state !== 'writing') break;
      this.offline = tries > 0;
      await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]));
    }
    this.#watching.delete(id);
    if (!aborter.signal.aborted) this.#tabs.postMessage(conversation);
  }

  /** Keep what came until it is shown with what comes next. */
  private gather(id: string, event: Delta): void {
    const message = this.find(id)!;
    const held = this.#held.get(id);
    message.tokens = event.tokens;
    if (held) {
      const texts = { thought: held.thought + event.thought, answer: held.answer + event.answer };
      this.#held.set(id, { ...event, ...texts });
      return;
    }
    this.#held.set(id, event);
    setTimeout(() => {
      const held = this.#held.get(id);
      this.#held.delete(id);
      if (held && this.find(id) === message) this.read(id, held);
    }, FLUSH_MS);
  }

  private read(id: string, event: Event): void {
    const message = this.find(id)!;
    if (!('thought' in event)) this.#held.delete(id); // the whole message comes now
    if ('end' in event) Object.assign(message, event.end, { tokens: undefined });
    else if ('error' in event) Object.assign(message, { state: 'failed', error: event.error.message });
    else {
      if (event.thought) message.thought += event.thought;
      if (event.answer) message.text += event.answer;
      const seconds = event.answer.trim() ? (performance.now() - this.begun[id]!) / 1000 : undefined;
      const { thought_seconds = seconds } = message.usage;
      const { prompt_tokens, completion_tokens, thought_tokens } = event;
      message.usage = { ...message.usage, thought_seconds, prompt_tokens, completion_tokens, thought_tokens };
    }
  }

  private async reload(conversation: string, id: string): Promise<void> {
    const whole = await api.open(conversation);
    const now = whole.messages.find((one) => one.id === id);
    const message = this.open?.id === conversation ? this.find(id) : undefined;
    if (message && now) Object.assign(message, now);
  }

  async stop(): Promise<void> {
    await this.try(() => Promise.all(this.writing.map((one) => this.act(one, 'stop'))));
  }

  async answerNow(message: Message): Promise<void> {
    await this.try(() => this.act(message, 'answer-now'));
  }

  private async act(message: Message, act: 'stop' | 'answer-now'): Promise<void> {
    await api.act(message.id, act).catch((error) => {
      if (error.code !== 'answer_not_found') throw error; // it ended while the button was pressed
    });
  }

  /** Show the branch that goes through `message`: the one that is shown where it does, else the latest. */
  async choose(message: Message): Promise<void> {
    if (this.path.includes(message)) return;
    const leaf = leafBelow(this.tree, message);
    this.open!.leaf = leaf;
    await this.try(() => api.change(this.open!.id, { leaf }));
  }

  async saveSettings(): Promise<void> {
    if (this.open) await this.try(() => api.change(this.open!.id, { settings: this.cleanSettings() }));
  }

  async change(head: Head, change: Partial<Pick<Head, 'title' | 'folder' | 'pinned'>>): Promise<void> {
    await this.try(async () => {
      await api.change(head.id, change);
      if (this.open?.id === head.id) Object.assign(this.open, change);
      await this.refresh();
    });
  }

  canKeep(head: Head): boolean {
    return !head.kept && this.keeping.keeps && !this.keeping.locked;
  }

  /** Write a conversation to the file that was not kept so far. */
  async keepOne(head: Head): Promise<void> {
    await this.try(async () => {
      const { kept } = await api.change(head.id, { keep: true });
      if (this.open?.id === head.id) this.open.kept = kept;
      await this.refresh();
    });
  }

  async remove(head: Head): Promise<void> {
    await this.try(async () => {
      await api.delete(head.id);
      if (this.open?.id === head.id) this.fresh();
      await this.refresh();
    });
  }

  /** Do something to the history as a whole. */
  async keep(act: () => Promise<Keeping>): Promise<boolean> {
    return this.try(async () => {
      this.keeping = await act();
      await this.refresh();
      if (this.open && !this.heads.some((one) => one.id === this.open!.id)) this.fresh();
    });
  }

  /** Without what was not filled in. */
  private cleanSettings(): Settings {
    const entries = Object.entries($state.snapshot(this.settings));
    return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null && value !== ''));
  }

  /** Run `act`; what goes wrong is shown, and false comes back. What went wrong before it is over then, no later thing. */
  async try(act: () => Promise<unknown>): Promise<boolean> {
    const before = this.failure;
    try {
      await act();
      if (this.failure === before) this.failure = '';
      return true;
    } catch (error) {
      if (!this.asksForKey(error)) this.failure = wordsOf(error);
      return false;
    }
  }

  /** Run `act` with each file: every one that goes wrong has its line, which stays while the others are read. */
  async tryEach(files: Iterable<File>, act: (file: File) => Promise<unknown>): Promise<void> {
    const lines = new Set<string>();
    for (const file of files) {
      try {
        await act(file);
      } catch (error) {
        if (!this.asksForKey(error)) lines.add(wordsOf(error, file.name));
      }
      this.failure = [...lines].join('\n');
    }
  }

  /** Without a key nothing is done: the page asks for one. */
  private asksForKey(error: unknown): boolean {
    const lacksKey = error instanceof ApiError && error.status === 401;
    this.needsKey ||= lacksKey;
    return lacksKey;
  }
}

export const chat = new Chat();
