"""The page in a browser: what people do with it, as they do it."""

import pytest
from playwright.sync_api import expect

from tests.serve.live import tiny_served
from tests.serve.page import Visit, needs_browser, served, talking

pytestmark = needs_browser
# half a thought, its end and the beginning of an answer, the rest
PARTS = (
    "먼저 12 + 5 를 더한다. " * 6,
    "먼저 12 + 5 를 더한다. " * 6 + "</think>답은 **17**입니다. ",
    "정확합니다. " * 12,
)
THOUGHT, ANSWER = (text.strip() for text in "".join(PARTS).split("</think>"))


@pytest.fixture
def model(tokenizer):
    return talking(
        tokenizer, says={"느리게": PARTS, "12 + 5": "12 + 5 = 17</think>답은 **17**입니다."}, seconds=0.004
    )


def test_a_real_model_answers(browser, tokenizer):
    with served(tiny_served(tokenizer)) as address, Visit(browser, address) as visit:
        visit.ask("12 + 5?", waits=False)
        visit.page.locator("article.answer:not([data-state=writing])").wait_for(timeout=60_000)
        expect(visit.page.locator("article.answer .prose, article.answer .thought").first).to_be_visible()


def test_a_thought_is_open_while_it_grows_and_folds_after(visit, model):
    visit.ask("느리게", waits=False)
    fold = visit.page.locator(".fold")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(fold).to_contain_text("Thinking…")
    expect(visit.page.locator(".thought .body")).to_contain_text("먼저")
    model.service.go_on(parts=2)
    visit.answered()
    expect(fold).to_have_attribute("aria-expanded", "false")
    expect(fold).to_contain_text("Thought for")
    expect(fold).to_contain_text("tokens")
    fold.click()
    expect(visit.page.locator(".thought .body")).to_contain_text("먼저")
    expect(visit.page.locator("footer .speed")).to_contain_text("tokens/s")


def test_answer_now_ends_the_thought(visit, model):
    visit.ask("느리게", waits=False)
    visit.button("Answer now").click()
    visit.page.locator("article.answer > .prose").get_by_text("17").wait_for()
    model.service.go_on()
    answer = visit.answered()
    thought = answer.locator(".fold")
    thought.click()
    assert answer.locator(".thought .body").inner_text().count("먼저") < 12
    expect(answer.locator("strong")).to_have_text("17")


def test_copying_an_answer_leaves_its_thought_out(visit):
    visit.ask("12 + 5")
    visit.button("Copy").click()
    visit.expect_copied("답은 **17**입니다.")
    visit.button("Copy thought").click()
    visit.expect_copied("12 + 5 = 17")


def test_reloading_in_mid_answer_loses_nothing(visit, model):
    visit.ask("느리게", waits=False)
    visit.page.locator(".thought .body").get_by_text("먼저").wait_for()
    visit.page.reload()
    model.service.go_on(parts=2)
    answer = visit.answered()
    visit.button("Copy").click()
    visit.expect_copied(ANSWER)
    answer.locator(".fold").click()
    expect(answer.locator(".thought .body")).to_have_text(THOUGHT)


def test_a_lost_connection_is_taken_up_again(visit, model):
    visit.ask("느리게", waits=False)
    visit.page.locator(".thought .body").get_by_text("먼저").wait_for()
    visit.context.set_offline(True)
    model.service.go_on(parts=2)
    visit.page.wait_for_timeout(300)
    visit.context.set_offline(False)
    visit.answered()
    visit.button("Copy").click()
    visit.expect_copied(ANSWER)
    visit.complaints.clear()


def test_stop_keeps_what_there_is_and_continue_goes_on(visit, model):
    visit.ask("느리게", waits=False)
    model.service.go_on()
    visit.page.locator("article.answer > .prose").get_by_text("17").wait_for()
    visit.button("Stop").click()
    answer = visit.answered("stopped")
    expect(answer).to_contain_text("Stopped.")
    model.service.says = {"느리게": "그리고 끝."}
    visit.button("Continue").click()
    answer = visit.answered()
    expect(answer.locator("> .prose")).to_contain_text("그리고 끝.")
    expect(answer.locator("> .prose")).to_contain_text("답은 17입니다.")
    expect(visit.page.locator("article.answer")).to_have_count(1)


def test_a_limit_reached_in_a_thought_is_said(visit):
    visit.page.get_by_role("button", name="Settings of this conversation").click()
    visit.page.get_by_label("Most tokens of an answer").fill("4")
    visit.page.get_by_role("button", name="Close").click()
    visit.ask("느리게", waits=False)
    expect(visit.answered("truncated")).to_contain_text("Reached the limit on tokens while thinking")


def test_regenerating_and_editing_make_branches_that_can_be_seen(visit, model):
    visit.ask("12 + 5")
    model.service.says["12 + 5"] = "다시</think>두 번째."
    visit.button("Regenerate").click()
    expect(visit.page.locator("article.answer > .prose").last).to_have_text("두 번째.")
    expect(visit.page.locator(".place").last).to_contain_text("2/2")
    visit.button("Previous version").click()
    expect(visit.page.locator("article.answer > .prose").last).to_contain_text("답은")
    visit.page.locator("article.said").hover()
    visit.button("Edit").click()
    visit.page.get_by_role("textbox", name="Edit").fill("다른 질문")
    visit.page.keyboard.press("Enter")
    visit.answered()
    expect(visit.page.locator("article.said .text")).to_have_text("다른 질문")
    visit.button("Branches").click()
    tree = visit.page.get_by_role("dialog")
    expect(tree.locator(".turn")).to_have_count(5)
    expect(tree.locator(".turn[aria-current]")).to_have_count(2)
    tree.get_by_text("두 번째.").click()
    expect(visit.page.locator("article.answer > .prose").last).to_have_text("두 번째.")
    visit.page.reload()
    expect(visit.page.locator("article.answer > .prose").last).to_have_text("두 번째.")


def test_two_models_side_by_side(browser, tokenizer):
    one = talking(tokenizer, "one", says={"12": "가</think>하나의 답"})
    two = talking(tokenizer, "two", says={"12": "나</think>둘의 답"})
    with served(one, two) as address, Visit(browser, address) as visit:
        visit.button("Compare").click()
        visit.ask("12", waits=False)
        expect(visit.page.locator(".pair article.answer[data-state=done]")).to_have_count(2)
        lefts = [
            box["x"] for box in (one.bounding_box() for one in visit.page.locator(".pair article").all())
        ]
        assert lefts[0] < lefts[1]
        expect(visit.page.locator(".pair")).to_contain_text("하나의 답")
        visit.page.locator(".pair article").last.get_by_role("button", name="Continue with this one").click()
        visit.button("Compare").click()
        visit.ask("또")
        asked = tokenizer.decode(list(one.service.asked[-1].prompt))
        assert "둘의 답" in asked
        assert "하나의 답" not in asked


def test_half_a_word_is_never_sent(visit, model):
    field = visit.page.locator("#message")
    field.focus()
    input_method = visit.context.new_cdp_session(visit.page)
    for text in ("ㄱ", "가", "강", "강ㅎ", "강화"):
        input_method.send(
            "Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)}
        )
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229, "nativeVirtualKeyCode": 229}
    input_method.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    visit.page.wait_for_timeout(200)
    assert model.service.asked == []
    assert visit.page.locator("article").count() == 0
    input_method.send("Input.insertText", {"text": "강화"})
    expect(field).to_have_value("강화")
    visit.page.keyboard.press("Shift+Enter")
    visit.page.keyboard.type("12 + 5")
    visit.page.keyboard.press("Enter")
    visit.answered()
    expect(visit.page.locator("article.said .text")).to_have_text("강화\n12 + 5")


def test_typing_in_a_word_that_is_edited_is_not_sent_either(visit, model):
    visit.ask("12 + 5")
    visit.page.locator("article.said").hover()
    visit.button("Edit").click()
    input_method = visit.context.new_cdp_session(visit.page)
    input_method.send("Input.imeSetComposition", {"text": "중", "selectionStart": 1, "selectionEnd": 1})
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229, "nativeVirtualKeyCode": 229}
    input_method.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    visit.page.wait_for_timeout(200)
    assert len(model.service.asked) == 1


@pytest.mark.parametrize(
    ("language", "greeting", "tag", "named"),
    [
        ("ko-KR", "무엇을 함께 생각해 볼까요?", "ko", "새 대화"),
        ("zh-CN", "想一起思考什么？", "zh-Hans", "新对话"),
        ("en-GB", "What would you like to think about?", "en", "New chat"),
        ("fr-FR", "What would you like to think about?", "en", "New chat"),
    ],
)
def test_the_browser_says_which_language(browser, model, language, greeting, tag, named):
    with served(model) as address, Visit(browser, address, language) as visit:
        expect(visit.page.locator("h2")).to_have_text(greeting)
        expect(visit.page.locator("html")).to_have_attribute("lang", tag)
        visit.page.get_by_role("button", name=named, exact=True).wait_for()


def test_every_message_says_its_language(visit, model):
    model.service.says = {
        "안녕": "생각</think>안녕하세요",
        "你好": "想</think>你好，很高兴",
        "hello": "think</think>Hello there",
    }
    for text in ("안녕", "你好", "hello"):
        visit.ask(text)
    for place, tag in enumerate(("ko", "zh-Hans", "en")):
        for words in ("article.said .text", "article.answer > .prose"):
            expect(visit.page.locator(words).nth(place)).to_have_attribute("lang", tag)
    expect(visit.page.locator("aside .title")).to_have_attribute("lang", "ko")


def test_another_language_and_appearance_are_remembered(visit):
    visit.page.get_by_role("button", name="Preferences").click()
    visit.page.get_by_label("Language").select_option("ko")
    visit.page.get_by_label("화면 모드").select_option("dark")
    visit.page.reload()
    expect(visit.page.locator("h2")).to_have_text("무엇을 함께 생각해 볼까요?")
    expect(visit.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_keyboard_does_everything(visit):
    keyboard = visit.page.keyboard
    keyboard.press("/")
    expect(visit.page.locator("#message")).to_be_focused()
    visit.ask("12 + 5")
    keyboard.press("Control+Shift+C")
    visit.expect_copied("답은 **17**입니다.")
    keyboard.press("Control+k")
    expect(visit.page.get_by_role("searchbox")).to_be_focused()
    keyboard.press("Control+Shift+O")
    expect(visit.page.locator("article")).to_have_count(0)
    visit.ask("느리게", waits=False)
    visit.page.locator(".thought").wait_for()
    keyboard.press("Escape")
    visit.answered("stopped")
    keyboard.press("Control+Shift+S")
    expect(visit.page.locator("aside")).to_have_count(0)
    visit.page.locator("h1").evaluate("document.activeElement.blur()")
    keyboard.press("?")
    expect(visit.page.get_by_role("dialog")).to_contain_text("Stop the answer")
    keyboard.press("Escape")
    expect(visit.page.get_by_role("dialog")).to_have_count(0)


def test_a_phone_shows_everything_without_scrolling_sideways(browser, model):
    with (
        served(model) as address,
        Visit(
            browser, address, "ko-KR", viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True
        ) as visit,
    ):
        visit.page.locator("#message").fill("12 + 5")
        visit.button("보내기").tap()
        visit.answered()
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
        visit.button("대화 목록 보기").tap()
        visit.page.locator("aside .title").tap()
        expect(visit.page.locator("aside")).to_have_count(0)


def test_conversations_are_kept_found_and_filed(visit):
    visit.page.get_by_role("button", name="Preferences").click()
    visit.page.get_by_role("switch").click()
    expect(visit.page.get_by_role("dialog")).to_contain_text("Kept in")
    visit.page.keyboard.press("Escape")
    for text in ("강화학습이란 무엇인가", "헌법재판소의 역할"):
        visit.button("New chat").click()
        visit.ask(text)
    search = visit.page.get_by_role("searchbox")
    search.fill("헌법")
    expect(visit.page.locator("aside .title")).to_have_text(["헌법재판소의 역할"])
    search.fill("없는말")
    expect(visit.page.locator("aside")).to_contain_text("Nothing found")
    search.fill("")
    expect(visit.page.locator("aside .title")).to_have_count(2)
    act(visit, "강화학습이란 무엇인가", "Rename")
    visit.page.get_by_role("dialog").get_by_role("textbox").fill("강화학습 공부")
    visit.page.keyboard.press("Enter")
    act(visit, "강화학습 공부", "Folder")
    visit.page.get_by_role("dialog").get_by_role("combobox").fill("수학")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("aside summary")).to_contain_text(["수학", "Today"])
    act(visit, "헌법재판소의 역할", "Pin")
    expect(visit.page.locator("aside summary")).to_contain_text(["Pinned", "수학"])
    with visit.page.expect_download() as download:
        act(visit, "강화학습 공부", "Export as Markdown")
    assert "강화학습이란 무엇인가" in download.value.path().read_text()
    act(visit, "헌법재판소의 역할", "Delete")
    visit.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(visit.page.locator("aside .title")).to_have_text(["강화학습 공부"])


def act(visit, title, item):
    """Choose from a conversation's menu."""
    row = visit.page.locator("aside li").filter(has_text=title)
    row.hover()
    row.get_by_role("button", name="More about").click()
    visit.page.get_by_role("menuitem", name=item).click()


def test_a_passphrase_locks_and_opens(visit):
    visit.page.get_by_role("button", name="Preferences").click()
    visit.page.get_by_role("switch").click()
    expect(visit.page.get_by_role("dialog")).to_contain_text("Kept in")
    visit.page.keyboard.press("Escape")
    visit.ask("12 + 5")
    visit.page.get_by_role("button", name="Preferences").click()
    visit.button("Encrypt with a passphrase").click()
    visit.page.get_by_label("Passphrase").fill("바른 말")
    visit.page.get_by_label("The same again").fill("바른 말")
    visit.page.keyboard.press("Enter")
    visit.button("Lock").click()
    expect(visit.page.locator("aside .title")).to_have_count(0)
    visit.page.get_by_label("Passphrase").fill("틀린 말")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("dialog")).to_contain_text("not the history's passphrase")
    visit.page.get_by_label("Passphrase").fill("바른 말")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("aside .title")).to_have_count(1)
    visit.complaints.clear()  # the browser logs the refused passphrase


def test_a_file_is_read_with_its_pages(visit, model):
    text = "\n".join(f"line {number}" for number in range(200))
    visit.page.locator("input[type=file]").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": text.encode()}
    )
    visit.page.locator(".chip").wait_for()
    visit.ask("12 + 5")
    prompt = model.tokenizer.decode(list(model.service.asked[0].prompt))
    assert "[file name]: notes.txt\n[file content begin]\n[page 1]\nline 0\n" in prompt
    assert "[page 4]" in prompt
    visit.page.locator(".chip .open").click()
    visit.page.get_by_role("dialog").get_by_role("button", name="3", exact=True).click()
    expect(visit.page.get_by_role("dialog").get_by_text("line 130", exact=False)).to_be_in_viewport()


def test_what_can_not_be_read_is_said_in_a_line(visit):
    visit.page.locator("input[type=file]").set_input_files(
        {"name": "picture.png", "mimeType": "image/png", "buffer": b"\x89PNG\0\0\0"}
    )
    expect(visit.page.get_by_role("alert")).to_contain_text("picture.png: this is not text")
    visit.complaints.clear()
