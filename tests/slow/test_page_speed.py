"""How long the page takes: a long answer that streams, and a long conversation that is opened."""

import json

import httpx
import pytest

from clearseek.serve.history import transfer
from clearseek.serve.history.records import Conversation, Message
from tests.serve.live import tiny_tokenizer
from tests.serve.page import Visit, needs_browser, served, talking

pytestmark = needs_browser
PART = """## 부분 {n}

**"강화학습"**은 $x_{n}^2$ 을 [늘린다](https://example.com). 文字也会**“出现”**在这里，继续写下去。
`code` and *more* words follow here.

- 하나: 값을 정한다
- 둘: `reward += 1`

```python
def step_{n}(state):
    return state + {n}
```

| a | b |
|---|---|
| {n} | 2 |

"""


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_20000_characters_cost_the_main_thread_less_than_2_seconds(browser, tokenizer):
    text = "".join(PART.replace("{n}", str(n)) for n in range(100))[:20_000]
    model = talking(tokenizer, otherwise="생각</think>" + text, seconds=0.005, tokens_at_once=15)
    with served(model) as address, Visit(browser, address) as visit:
        model.context = 100_000
        meter = visit.context.new_cdp_session(visit.page)
        meter.send("Performance.enable", {"timeDomain": "threadTicks"})  # what others compute is not counted
        before = seconds_of(meter)
        visit.page.set_default_timeout(90_000)
        visit.page.locator("#message").fill("12 + 5")
        visit.page.keyboard.press("Enter")
        state = None
        while (
            state != "done"
        ):  # waiting for a locator looks at every frame, which costs the page more than the answer
            visit.page.wait_for_timeout(500)
            state = visit.page.evaluate("document.querySelector('article.answer')?.dataset.state")
        spent = seconds_of(meter) - before
        visit.button("Copy").click()
        visit.expect_copied(text.strip())
    print(f"20,000 characters: {spent:.2f} s of the main thread")
    assert spent < 2


def seconds_of(meter):
    """What the main thread has worked so far."""
    metrics = {one["name"]: one["value"] for one in meter.send("Performance.getMetrics")["metrics"]}
    return metrics["TaskDuration"]


def test_1000_messages_open_within_100_ms(browser, tokenizer, tmp_path):
    head, messages, parent = Conversation(title="long"), [], None
    for number in range(1000):
        role = ("user", "assistant")[number % 2]
        messages.append(
            Message(head.id, parent, role, PART.replace("{n}", str(number)), created=1e9 + number)
        )
        parent = head.leaf = messages[-1].id
    with served(talking(tokenizer), history=tmp_path) as address:
        kept = {"Content-Type": "application/octet-stream"}
        httpx.put(f"{address}/api/history", json={"keeps": True})
        httpx.post(f"{address}/api/import", content=transfer.write([(head, messages)], "json"), headers=kept)
        with Visit(browser, address) as visit:
            visit.page.locator("aside .title").wait_for()
            times = []
            for _ in range(5):
                times.append(visit.page.evaluate(OPEN))
                visit.page.get_by_role("button", name="New chat").first.click()
    print(f"1,000 messages: {json.dumps(times)} ms")
    assert sorted(times)[2] < 100


OPEN = """() => new Promise((done) => {
  const began = performance.now();
  document.querySelector('aside li .open').click();
  const look = () => document.querySelectorAll('article.answer').length
    ? requestAnimationFrame(() => setTimeout(() => done(performance.now() - began))) : requestAnimationFrame(look);
  look();
})"""
