"""The page as somebody uses it every day: what fails is said and can be tried again, nothing is lost from sight."""

import asyncio
import threading

import pytest
from playwright.sync_api import expect

from clearseek.serve.errors import Busy
from tests.serve.page import Visit, needs_browser, served, talking

pytestmark = needs_browser
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
WIDE = (
    "| " + " | ".join(f"column{n} name" for n in range(8)) + " |\n" + "|---" * 8 + "|\n" + "| cell " * 8 + "|"
)
DIAGRAMS = """x</think>```mermaid
sequenceDiagram
  Alice->>Bob: Hello
```

```mermaid
graph LR
  A[Start] --> B{Is it?}
```
"""


@pytest.fixture
def model(tokenizer):
    says = {
        "느리게": "생각 " * 60 + "</think>" + "정확합니다. " * 40,
        "표": f"x</think>{WIDE}",
        "아랍": "x</think>مرحبا بالعالم",
        "그려": DIAGRAMS,
    }
    return talking(tokenizer, says=says, seconds=0.004, tokens_at_once=4)


class Door:
    """Stands before a model: refuses what is asked while `refuses`, and lets it wait until `opened`."""

    def __init__(self, service, refuses=False, is_open=True):
        self.submit, self.refuses, self.opened = service.submit, refuses, threading.Event()
        if is_open:
            self.opened.set()
        service.submit = self

    async def __call__(self, request):
        await asyncio.to_thread(self.opened.wait, 60)
        if self.refuses:
            raise Busy("100 requests are waiting already")
        return await self.submit(request)


def send(visit, text):
    visit.page.locator("#message").fill(text)
    visit.page.locator("button.send").click()


def talk(visit, questions):
    """A long conversation, of which only the end is drawn."""
    for question in questions:
        send(visit, question)
        expect(visit.page.locator("article.said .text").last).to_have_text(question)
        visit.page.wait_for_function(LAST_IS_DONE)


LAST_IS_DONE = "() => [...document.querySelectorAll('article')].at(-1)?.dataset.state === 'done'"


def test_a_question_that_could_not_be_asked_can_be_asked_again(visit, model):
    door = Door(model.service, refuses=True)
    send(visit, "하나")
    expect(visit.page.get_by_role("alert")).to_contain_text("too much to do")
    expect(visit.page.locator("article")).to_have_count(1)
    door.refuses = False
    visit.button("Try again").click()
    visit.answered()
    expect(visit.page.get_by_role("alert")).to_have_count(0)
    expect(visit.button("Try again")).to_have_count(0)
    visit.complaints.clear()  # the browser logs what was refused


def test_what_was_left_unanswered_does_not_stand_in_the_way(visit, model):
    visit.ask("하나")
    door = Door(model.service, refuses=True)
    send(visit, "둘")
    visit.button("Try again").wait_for()
    door.refuses = False
    send(visit, "셋")
    visit.answered()
    expect(visit.page.locator("article.said .text")).to_have_text(["하나", "셋"])
    visit.complaints.clear()


def test_a_server_that_is_gone_is_named_in_the_readers_language(browser, model):
    with served(model) as address, Visit(browser, address, "ko-KR") as visit:
        visit.context.set_offline(True)
        send(visit, "하나")
        expect(visit.page.get_by_role("alert")).to_contain_text("서버에 연결할 수 없습니다")
        expect(visit.page.locator("#message")).to_have_value("하나")
        visit.complaints.clear()


def test_a_model_that_takes_its_time_is_waited_for_in_sight(visit, model):
    door = Door(model.service, is_open=False)
    send(visit, "하나")
    expect(visit.page.get_by_text("Waiting for the model")).to_be_visible()
    visit.page.locator("#message").fill("둘")
    expect(visit.button("Send")).to_be_disabled()
    door.opened.set()
    visit.answered()
    assert len(model.service.asked) == 1


def test_another_tab_sees_what_this_one_did(visit):
    visit.ask("하나")
    other = visit.context.new_page()
    other.goto(visit.page.url)
    expect(other.locator("article")).to_have_count(2)
    visit.ask("둘")
    expect(other.locator("article.said .text")).to_have_text(["하나", "둘"])
    expect(other.locator("article.answer[data-state=done]")).to_have_count(2)


def test_a_passphrase_is_typed_twice_and_what_is_wrong_is_said(browser, model, tmp_path):
    with served(model, history=tmp_path) as address, Visit(browser, address, "ko-KR") as visit:
        visit.page.get_by_role("button", name="환경 설정").click()
        visit.page.get_by_role("switch").click()
        visit.button("암호문으로 암호화").click()
        visit.page.get_by_label("암호문", exact=True).fill("바른 말")
        visit.page.get_by_label("한 번 더 입력").fill("바른 밀")
        expect(visit.page.get_by_role("dialog")).to_contain_text("두 암호문이 다릅니다.")
        expect(visit.button("저장")).to_be_disabled()
        visit.page.get_by_label("한 번 더 입력").fill("바른 말")
        visit.page.keyboard.press("Enter")
        visit.button("잠그기").click()
        expect(visit.page.get_by_role("dialog")).to_contain_text("누구도 되찾을 수 없습니다")
        visit.page.get_by_label("암호문", exact=True).fill("틀린 말")
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_role("dialog")).to_contain_text("암호문이 맞지 않습니다.")
        visit.complaints.clear()


def test_what_was_searched_for_is_shown_and_marked(visit, model):
    model.service.says = {"헌법": "x</think>" + "긴 말.\n\n" * 40, "다른": "x</think>짧은 말."}
    visit.ask("헌법재판소의 역할")
    talk(visit, (f"다른 이야기 {number}" for number in range(6)))
    visit.button("New chat").click()
    visit.page.get_by_role("searchbox").fill("판소")
    expect(visit.page.locator("aside mark")).to_have_text("판소")
    visit.page.locator("aside li .open").click()
    expect(visit.page.locator("article.said .text").first).to_have_text("헌법재판소의 역할")
    expect(visit.page.locator("article.said").first).to_be_in_viewport()


def test_the_keyboard_is_where_one_goes_on(browser, model):
    with served(model) as address, Visit(browser, address) as visit:
        send(visit, "하나")
        expect(visit.page.locator("#message")).to_be_focused()
        visit.answered()
        visit.page.locator("article.said").hover()
        visit.button("Edit").click()
        field = visit.page.get_by_role("textbox", name="Edit")
        assert field.evaluate("one => one.selectionStart") == 2
        visit.page.keyboard.press("Escape")
        expect(visit.button("Edit")).to_be_focused()
        visit.button("Hide conversations").click()
        expect(visit.button("Show conversations")).to_be_focused()
        visit.page.keyboard.press("Enter")
        expect(visit.button("Hide conversations")).to_be_focused()


def test_conversations_on_a_phone_close_by_escape(browser, model):
    with served(model) as address, Visit(browser, address, **PHONE) as visit:
        visit.button("Show conversations").tap()
        assert visit.page.locator("main").evaluate("one => one.inert")
        visit.page.keyboard.press("Escape")
        expect(visit.page.locator("aside")).to_have_count(0)
        assert not visit.page.locator("main").evaluate("one => one.inert")


def test_a_table_wider_than_the_phone_scrolls_and_cuts_no_word(browser, model):
    with served(model) as address, Visit(browser, address, **PHONE) as visit:
        send(visit, "표")
        visit.answered()
        table = visit.page.locator(".prose .table")
        assert table.evaluate("one => one.scrollWidth > one.clientWidth")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert table.locator("th").first.evaluate(NUM_LINES) <= 2


NUM_LINES = """one => {
  const words = document.createRange();
  words.selectNodeContents(one);
  return words.getClientRects().length;
}"""
RIGHT = """one => {
  const words = document.createRange();
  words.selectNodeContents(one);
  return one.getBoundingClientRect().right - words.getBoundingClientRect().right;
}"""


def test_arabic_begins_at_the_right(visit):
    visit.ask("아랍")
    assert visit.page.locator("article.answer .prose p").evaluate(RIGHT) < 2


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_a_diagram_fills_its_frame(browser, model, motion):
    with served(model) as address, Visit(browser, address, reduced_motion=motion) as visit:
        visit.ask("그려")
        visit.page.locator("figure.drawn img").nth(1).wait_for(timeout=30_000)
        for place in range(2):
            edges = visit.page.locator("figure.drawn img").nth(place).evaluate(EDGES)
            assert max(edges) < 60, edges
            assert min(edges) > 1, edges


EDGES = """async (one) => {  // how much is empty at the left, the top, the right, the bottom (pixels)
  await one.decode();
  const [width, height] = [one.naturalWidth, one.naturalHeight];
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pen = canvas.getContext('2d');
  pen.drawImage(one, 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  const edges = [width, height, width, height];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (data[4 * (y * width + x) + 3])
        [x, y, width - 1 - x, height - 1 - y].forEach((gap, side) => (edges[side] = Math.min(edges[side], gap)));
  return edges;
}"""


def test_the_whole_conversation_is_printed(visit):
    talk(visit, (f"질문 {number}" for number in range(7)))
    expect(visit.page.locator("article")).to_have_count(10)
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    visit.page.emulate_media(media="print")
    expect(visit.page.locator("article")).to_have_count(14)
    expect(visit.page.locator("aside")).to_be_hidden()
    expect(visit.page.locator("#message")).to_be_hidden()
    assert visit.page.locator(".scroller").evaluate("one => one.scrollHeight - one.clientHeight") == 0
    assert visit.page.evaluate("document.body.scrollHeight") > 800


def test_copying_works_where_the_browser_hides_the_clipboard(browser, model):
    with served(model) as address, Visit(browser, address) as visit:
        visit.page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        visit.page.reload()
        visit.ask("하나")
        visit.button("Copy").click()
        visit.page.locator("#message").focus()
        visit.page.keyboard.press("Control+V")
        expect(visit.page.locator("#message")).to_have_value("네.")
