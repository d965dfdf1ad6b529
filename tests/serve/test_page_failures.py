"""What goes wrong, as the page says it: in the reader's language, a line for each thing, with what to do."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from clearseek.serve.errors import Busy
from tests.serve.page import Visit, needs_browser, served, talking
from tests.serve.test_page_files import pdf

ROOT = Path(__file__).resolve().parents[2]
MADE = re.compile(r'(?:KnownMistake|KnownFailure)\(\s*"(\w+)"|\bcode="(\w+)"')
# for programs: the page asks for nothing that could fail so, or has a dialog for it
NOT_OF_THE_PAGE = {"invalid_json", "answer_not_found", "invalid_api_key", "no_run", "unsupported_media_type"}
SMALL = {"viewport": {"width": 320, "height": 560}}


def test_the_page_has_words_for_every_code():
    sources = "".join(path.read_text() for path in (ROOT / "clearseek" / "serve").rglob("*.py"))
    codes = {code for pair in MADE.findall(sources) for code in pair if code}
    known = set(
        re.findall(r"^  (\w+): '", (ROOT / "web" / "src" / "lib" / "failures.ts").read_text(), re.MULTILINE)
    )
    assert codes - known == NOT_OF_THE_PAGE
    assert known <= codes


@pytest.fixture
def model(tokenizer):
    return talking(tokenizer, context=512, says={"길게": "하나 둘 " * 30 + "</think>끝."})


@needs_browser
def test_every_file_that_can_not_be_read_has_its_line(browser, model):
    files = {
        "a.pdf": b"%PDF-1.7",
        "b.txt": b"",
        "c.exe": b"MZ\0\0",
        "d.pdf": pdf(" "),
        "e.txt": "좋다".encode(),
    }
    with served(model) as address, Visit(browser, address, "ko-KR", **SMALL) as visit:
        last, held = "**/api/files?name=e.txt", []
        visit.page.route(last, lambda route: held.append(route))
        with visit.page.expect_request(last):
            visit.page.locator("input[type=file]").set_input_files(
                [{"name": name, "mimeType": "", "buffer": content} for name, content in files.items()]
            )
        lines = (
            "a.pdf: PDF가 손상되어",
            "b.txt: 빈 파일입니다",
            "c.exe: 글이 아닙니다",
            "d.pdf: 글이 없습니다",
        )
        for line in lines:
            expect(visit.page.get_by_role("alert")).to_contain_text(line)
        assert visit.page.get_by_role("alert").inner_text().strip().count("\n") == len(lines) - 1
        held.pop().continue_()  # every line was there while the last file was being read
        visit.page.locator(".chip .open").click()  # looking at a file sends nothing
        expect(visit.page.get_by_role("dialog")).to_contain_text("좋다")
        visit.page.get_by_role("dialog").get_by_role("button", name="닫기").click()
        visit.page.get_by_role("button", name="e.txt 빼기").click()
        expect(visit.page.locator(".chip")).to_have_count(0)
        assert model.service.asked == []
        visit.complaints.clear()


@needs_browser
def test_what_began_before_takes_back_no_failure(browser, model):
    """The list of conversations comes late, after a file could not be read."""
    held = []
    with served(model) as address, Visit(browser, address) as visit:
        visit.ask("하나")
        visit.page.route("**/api/conversations", lambda route: held.append(route))
        with visit.page.expect_request("**/api/conversations"):
            visit.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        visit.page.locator("input[type=file]").set_input_files(
            {"name": "c.exe", "mimeType": "", "buffer": b"MZ\0\0"}
        )
        expect(visit.page.get_by_role("alert")).to_contain_text("c.exe")
        with visit.page.expect_response("**/api/conversations"):
            held.pop().continue_()
        visit.page.wait_for_timeout(200)
        expect(visit.page.get_by_role("alert")).to_contain_text("c.exe")
        visit.complaints.clear()


@needs_browser
@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en-US", "the model holds 512 with its answer"),
        ("ko-KR", "합해 512토큰"),
        ("zh-CN", "最多容纳 512 个"),
    ],
)
def test_a_full_context_says_what_to_do(browser, model, language, said):
    with served(model) as address, Visit(browser, address, language) as visit:
        visit.page.locator("#message").fill("가나다 " * 600)
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_role("alert")).to_contain_text(said)
        visit.complaints.clear()


@needs_browser
def test_a_thought_that_was_cut_can_be_answered_now(browser, model):
    with served(model) as address, Visit(browser, address) as visit:
        visit.button("Settings of this conversation").click()
        visit.page.get_by_label("Most tokens of an answer").fill("9")
        visit.page.get_by_role("dialog").get_by_role("button", name="Close").click()
        visit.ask("길게", waits=False)
        visit.answered("truncated")
        model.service.says = {"길게": "끝."}
        visit.button("Answer now").click()
        expect(visit.answered().locator("> .prose")).to_have_text("끝.")


@needs_browser
@pytest.mark.parametrize("language", ["en-US", "ko-KR"])
def test_the_smallest_window_cuts_nothing_off(browser, model, language):
    models = (model, talking(model.tokenizer, "another-model"))
    with served(*models) as address, Visit(browser, address, language, **SMALL) as visit:
        visit.page.locator("#message").fill("안녕")
        visit.page.keyboard.press("Enter")
        visit.answered()
        send = visit.page.locator("button.send").bounding_box()
        assert abs(send["width"] - send["height"]) < 1
        bar = visit.page.locator(".composer .bar").bounding_box()
        assert send["x"] + send["width"] <= bar["x"] + bar["width"] + 1
        visit.page.locator("header button").last.click()
        assert visit.page.evaluate(CUT) == []
        visit.page.keyboard.press("Escape")
        visit.page.locator("header button").first.click()
        visit.page.locator("aside .state").click()
        assert visit.page.evaluate(CUT) == []
        visit.page.keyboard.press("Escape")
        visit.page.locator("aside .new").click()
        visit.page.set_viewport_size({"width": 320, "height": 256})  # 1280 x 1024 at 400 %
        visit.page.locator(".welcome").evaluate("one => one.scrollTo(0, 0)")
        expect(visit.page.locator(".welcome h2")).to_be_in_viewport()


CUT = """[...document.querySelectorAll('dialog *')].filter((one) => {
  const [box, all] = [one.getBoundingClientRect(), one.closest('dialog').getBoundingClientRect()];
  return box.width && (box.right > all.right || box.left < all.left);
}).map((one) => one.outerHTML.slice(0, 100))"""


@needs_browser
def test_the_keyboard_stays_with_the_versions_and_walks_the_tree(browser, model):
    with served(model) as address, Visit(browser, address) as visit:
        for question in ("하나", "둘", "셋"):
            visit.ask(question)
        for number in (1, 2):
            visit.page.locator("article.said").nth(0).get_by_role("button", name="Edit").focus()
            visit.page.keyboard.press("Enter")
            visit.page.get_by_role("textbox", name="Edit").fill(f"다른 {number}")
            visit.page.keyboard.press("Enter")
            expect(visit.page.locator("article.said .text")).to_have_text([f"다른 {number}"])
            expect(visit.page.locator("article")).to_have_count(2)
            visit.answered()
        visit.button("Previous version").focus()
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("article.said .text")).to_have_text("다른 1")
        expect(visit.button("Previous version")).to_be_focused()
        visit.page.keyboard.press("Enter")  # the first has none before it
        expect(visit.page.locator("article.said .text")).to_have_text(["하나", "둘", "셋"])
        expect(visit.button("Next version")).to_be_focused()
        visit.button("Branches").click()
        expect(visit.page.get_by_role("dialog").locator(".turn").first).to_be_visible()
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.press("ArrowDown")
        visit.page.keyboard.press("ArrowDown")
        expect(visit.page.get_by_role("dialog").locator(".turn").nth(2)).to_be_focused()
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("article.said.found .text")).to_have_text("둘")
        expect(visit.page.locator("article.said .text")).to_have_text(["하나", "둘", "셋"])


@needs_browser
def test_a_busy_server_leaves_the_question_where_it_can_be_found(browser, model):
    async def busy(request):
        raise Busy("too many")

    model.service.submit = busy
    with served(model) as address, Visit(browser, address, "ko-KR") as visit:
        visit.page.locator("#message").fill("안녕")
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_role("alert")).to_contain_text("지금은 서버에 요청이 너무 많습니다")
        expect(visit.page.locator("aside .title")).to_have_text("안녕")
        visit.complaints.clear()


@needs_browser
def test_a_wrong_passphrase_is_said_beside_a_button_in_one_line(browser, model, tmp_path):
    with served(model, history=tmp_path) as address:
        httpx.put(f"{address}/api/history", json={"keeps": True})
        httpx.put(f"{address}/api/history/passphrase", json={"passphrase": "正确的口令"})
    with served(model, history=tmp_path) as address, Visit(browser, address, "zh-CN") as visit:
        visit.page.locator(".welcome button.main").click()
        dialog = visit.page.get_by_role("dialog")
        field, unlock = dialog.locator("input[type=password]"), dialog.get_by_role("button", name="解锁")
        assert unlock.bounding_box()["height"] < 50
        field.fill("错的口令")
        unlock.click()
        expect(dialog.get_by_role("alert")).to_have_text("口令不正确。")
        visit.complaints.clear()
