"""A service that says what it was told to say, for tests that are about the words around it."""

import asyncio

from clearseek.engine.request import Completion
from clearseek.serve.answering import Answering, Delta
from clearseek.serve.served_model import ServedModel
from clearseek.text.incremental import IncrementalDecoder


class ScriptedService:
    """Answers every request with `text`, a few tokens at a time; what was asked is in `asked`.

    `text` may be a function of the prompt's text. `seconds` go by between two deltas; one that is cancelled ends there.
    With `error` the last one says that it failed.
    """

    is_lost = False

    def __init__(self, tokenizer, text, seconds=0.0, tokens_at_once=1, error=None):
        self.tokenizer, self.text, self.seconds, self.tokens_at_once, self.error = (
            tokenizer,
            text,
            seconds,
            tokens_at_once,
            error,
        )
        self.asked, self.tasks = [], set()
        self.num_waiting = 0

    @property
    def num_running(self):
        return len(self.tasks)

    async def submit(self, request):
        self.asked.append(request)
        cancelled = asyncio.Event()
        answering = Answering(request, cancelled.set, lambda: None)
        for sample in range(request.num_drawn):
            task = asyncio.create_task(self._say(answering, sample, cancelled))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return answering

    async def _say(self, answering, sample, cancelled):
        text = (
            self.text(self.tokenizer.decode(answering.request.prompt)) if callable(self.text) else self.text
        )
        tokens = [*self.tokenizer.encode(text), self.tokenizer.eos_id][
            : answering.request.sampling.max_tokens
        ]
        shown = answering.request.sampling.shown_ids
        said, decoder = [], IncrementalDecoder(self.tokenizer, shown)
        for start in range(0, len(tokens), self.tokens_at_once):
            await asyncio.sleep(self.seconds)
            new = tokens[start : start + self.tokens_at_once]
            text = "".join(decoder.feed(token) for token in new)
            said += new
            reason = (
                "cancelled"
                if cancelled.is_set()
                else "stop"
                if new[-1] == self.tokenizer.eos_id
                else "length"
            )
            over = cancelled.is_set() or start + self.tokens_at_once >= len(tokens)
            reason = "error" if self.error else reason
            completion = Completion(said, [-0.5] * len(said), reason, error=self.error) if over else None
            answering.put(Delta(sample, new, [-0.5] * len(new), [], text, completion))
            if over:
                return

    def close(self, seconds):
        pass


def scripted_model(tokenizer, text, name="tiny", context=4096, **settings):
    """A model that says `text`, in which <think> and </think> are tokens."""
    return ServedModel(name, tokenizer, ScriptedService(tokenizer, text, **settings), context, {})
