"""A browser on a page, and a model that says what a test wants it to say."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from clearseek.config.server import Server
from clearseek.engine.request import Completion
from clearseek.serve.answering import Answering, Delta
from clearseek.serve.page import site
from clearseek.serve.registry import Registry
from clearseek.serve.served_model import ServedModel
from clearseek.text.incremental import IncrementalDecoder
from tests.serve.live import live

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or not site.is_built(),
    reason="chromium is not here" if CHROMIUM is None else "the page is not built; make page",
)
PAUSE = None  # among tokens: what comes after it waits for `go_on`


class Talker:
    """Says to a question what `says` has for it (the one whose key comes last in it), else `otherwise`.

    `seconds` go by between two deltas of `tokens_at_once`. Of a text in several parts each but the first is said
    once `go_on` allowed it, so that a test sees what holds between two of them, however slow it is.
    """

    def __init__(self, tokenizer, says=None, otherwise="생각</think>네.", seconds=0.0, tokens_at_once=1):
        self.tokenizer, self.says, self.otherwise = tokenizer, says or {}, otherwise
        self.seconds, self.tokens_at_once = seconds, tokens_at_once
        self.asked, self.tasks, self.num_waiting = [], set(), 0
        self.parts_allowed = 0

    def go_on(self, parts=1):
        self.parts_allowed += parts

    @property
    def num_running(self):
        return len(self.tasks)

    async def submit(self, request):
        self.asked.append(request)
        prompt = self.tokenizer.decode(list(request.prompt))
        place = {key: prompt.rfind(key) for key in self.says}
        key = max(place, key=place.get, default=None)
        text = self.says[key] if key is not None and place[key] >= 0 else self.otherwise
        stop, now = asyncio.Event(), asyncio.Event()
        answering = Answering(request, stop.set, now.set)
        task = asyncio.create_task(self._say(answering, text, stop, now))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return answering

    async def _say(self, answering, text, stop, now):
        first, *parts = [text] if isinstance(text, str) else text
        left = self.tokenizer.encode(first)
        for part in parts:
            left += [PAUSE, *self.tokenizer.encode(part)]
        left.append(self.tokenizer.eos_id)
        said, decoder, most = [], IncrementalDecoder(self.tokenizer), answering.request.sampling.max_tokens
        end = self.tokenizer.think_end_id
        while True:
            await asyncio.sleep(self.seconds)
            if now.is_set() and end in left:
                left = left[left.index(end) :]
            if left[0] is PAUSE and not stop.is_set():
                if not self.parts_allowed:
                    continue
                self.parts_allowed -= 1
                left = left[1:]
            room = min(self.tokens_at_once, most - len(said))
            if PAUSE in left:
                room = min(room, left.index(PAUSE))
            new, left = left[:room], left[room:]
            said += new
            reason = (
                "cancelled"
                if stop.is_set()
                else "stop"
                if not left
                else "length"
                if len(said) >= most
                else None
            )
            words = "".join(decoder.feed(token) for token in new if token != self.tokenizer.eos_id)
            completion = None if reason is None else Completion(list(said), [-0.5] * len(said), reason)
            answering.put(Delta(0, new, [-0.5] * len(new), [], words, completion))
            if completion is not None:
                return

    def close(self, seconds):
        pass


def talking(tokenizer, name="r1-mini", context=4096, **settings):
    """A model with a `Talker` behind it."""
    return ServedModel(name, tokenizer, Talker(tokenizer, **settings), context, {"temperature": 0.6})


@contextmanager
def browsing() -> Iterator[object]:
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def served(*models, history=None):
    """The address of a server of these models."""
    with live(Registry(models), Server(port=0, history=history, drain_seconds=0)) as address:
        yield address


class Visit:
    """One page of a browser, with everything that it complained of and asked for."""

    def __init__(self, browser, address, language="en-US", **settings):
        settings = {
            "viewport": {"width": 1280, "height": 800},
            "locale": language,
            "reduced_motion": "reduce",
        } | settings
        self.context = browser.new_context(**settings)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        self.address, self.page = address, self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.complaints, self.asked = [], []
        self.page.on(
            "console", lambda message: message.type == "error" and self.complaints.append(message.text)
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.locator("header .picker").first.wait_for()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            assert not self.complaints, self.complaints
            assert [url for url in self.asked if not url.startswith((self.address, "blob:", "data:"))] == []

    def ask(self, text, waits=True):
        """Type a question and send it."""
        count = self.page.locator("article").count()
        self.page.get_by_role("dialog").first.wait_for(state="detached")  # it gives the focus back as it goes
        self.page.locator("#message").fill(text)
        self.page.locator("#message").press("Enter")
        self.page.wait_for_function("n => document.querySelectorAll('article').length > n + 1", arg=count)
        if waits:
            self.answered()

    def answered(self, state="done"):
        """The last answer, once it has come to this state."""
        self.page.locator("article.answer").last.wait_for()
        last = self.page.locator(f'article.answer[data-state="{state}"]').last
        self.page.wait_for_function(
            "state => [...document.querySelectorAll('article.answer')].at(-1)?.dataset.state === state",
            arg=state,
        )
        return last

    def button(self, name):
        """The last button of that name."""
        return self.page.get_by_role("button", name=name, exact=True).last

    def expect_copied(self, text):
        """Fails unless the clipboard comes to hold it: writing there takes a moment."""
        held = "text => navigator.clipboard.readText().then(held => held === text)"
        self.page.wait_for_function(held, arg=text)
