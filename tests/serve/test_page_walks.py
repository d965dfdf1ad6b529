"""Walks through the page: keys, files dropped and pasted, the meter, exports and imports, everything deleted."""

import base64
import json
from hashlib import sha256

import pytest
from playwright.sync_api import expect

from clearseek.config.server import Server
from clearseek.serve.keys import Key, Keys
from clearseek.serve.registry import Registry
from tests.serve.live import live
from tests.serve.page import needs_browser, talking
from tests.serve.test_page_browser import PARTS, act

pytestmark = needs_browser


@pytest.fixture
def model(tokenizer):
    says = {"느리게": PARTS, "어디": "x</think>첫째는 [page 1], 셋째는 **[page 3]**, 없는 것은 [page 9]."}
    return talking(tokenizer, says=says, seconds=0.004)


def drop(visit, *paths):
    """As from the desktop: Chromium itself reads the files."""
    hand = visit.context.new_cdp_session(visit.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        hand.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 300, "data": data})
    expect(visit.page.get_by_text("Drop files to add them")).to_be_visible()
    hand.send("Input.dispatchDragEvent", {"type": "drop", "x": 600, "y": 300, "data": data})
    expect(visit.page.get_by_text("Drop files to add them")).to_have_count(0)


def preferences(visit):
    visit.page.get_by_role("button", name="Preferences").click()
    return visit.page.get_by_role("dialog")


def test_files_are_dropped_and_of_one_name_both_stay(visit, model, tmp_path):
    paths = [tmp_path / folder / "README.md" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"of {path.parent.name}", encoding="utf-8")
    for number, path in enumerate([*paths, paths[0]]):
        drop(visit, path)
        expect(visit.page.locator(".composer .name")).to_have_count(min(number + 1, 2))
    expect(visit.page.locator(".composer .name")).to_have_text(["README.md", "README (2).md"])
    visit.ask("느리게", waits=False)
    expect(visit.page.locator("article.said .name")).to_have_text(["README.md", "README (2).md"])
    asked = model.tokenizer.decode(list(model.service.asked[0].prompt))
    assert asked.index("README.md") < asked.index("of a") < asked.index("README (2).md") < asked.index("of b")


PASTE = """(field) => {
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File(['붙여 넣은 글'], 'pasted.txt'));
  field.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
}"""
COPY_PICTURE = """async (png) => {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ 'image/png': new Blob([bytes], { type: 'image/png' }) })]);
}"""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_files_are_pasted_and_text_stays_text(visit):
    assert base64.b64decode(PNG)
    field = visit.page.locator("#message")
    visit.page.evaluate("navigator.clipboard.writeText('글')")
    field.press("Control+V")
    expect(field).to_have_value("글")
    field.evaluate(PASTE)
    expect(visit.page.locator(".composer .name")).to_have_text(["pasted.txt"])
    visit.page.evaluate(COPY_PICTURE, PNG)
    field.press("Control+V")
    expect(visit.page.get_by_role("alert")).to_contain_text("image.png: this is not text")
    expect(field).to_have_value("글")
    visit.button("Remove pasted.txt").click()
    expect(visit.page.locator(".composer .name")).to_have_count(0)
    visit.complaints.clear()  # the browser logs the refused picture


def test_a_page_that_is_named_opens_the_file_there(visit):
    text = "\n".join(f"line {number}" for number in range(200))
    visit.page.locator("input[type=file]").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": text.encode()}
    )
    visit.page.locator(".chip").wait_for()
    visit.ask("어디")
    marks = visit.page.locator("article.answer .page-mark")
    expect(marks).to_have_text(["[page 1]", "[page 3]", "[page 9]"])
    expect(visit.page.locator("article.answer button.page-mark")).to_have_count(2)
    visit.button("[page 3]").click()
    dialog = visit.page.get_by_role("dialog", name="notes.txt")
    expect(dialog.get_by_text("line 130", exact=False)).to_be_in_viewport()
    expect(dialog.get_by_role("heading", name="Page 1", exact=True)).not_to_be_in_viewport()
    visit.page.keyboard.press("Escape")
    expect(visit.button("[page 3]")).to_be_focused()


def metered(visit):
    """Tokens by the meter."""
    return int(visit.page.locator("meter").get_attribute("value"))


def test_the_meter_counts_drafts_files_and_what_is_being_written(visit, model):
    count = model.tokenizer.encode_plain
    meter = visit.page.locator("meter")
    expect(meter).to_have_count(0)
    visit.page.locator("#message").fill("느리게 하나 둘 셋")
    expect(meter).to_have_attribute("value", str(len(count("느리게 하나 둘 셋"))))
    visit.page.locator("input[type=file]").set_input_files(
        {"name": "a.txt", "mimeType": "text/plain", "buffer": "파일 속의 글".encode()}
    )
    read = "[file name]: a.txt\n[file content begin]\n[page 1]\n파일 속의 글\n[file content end]\n"
    expect(meter).to_have_attribute("value", str(len(count("느리게 하나 둘 셋")) + len(count(read))))
    visit.ask("느리게", waits=False)
    prompt = len(model.service.asked[0].prompt)
    visit.page.locator(".thought .body").get_by_text("먼저").wait_for()
    visit.page.wait_for_function("prompt => document.querySelector('meter').value > prompt", arg=prompt)
    model.service.go_on()
    visit.page.locator("article.answer > .prose").get_by_text("17").wait_for()
    visit.button("Stop").click()
    visit.answered("stopped")
    stopped = metered(visit)
    model.service.says = {"느리게": "그리고 끝."}
    visit.button("Continue").click()
    visit.answered()
    asked = model.service.asked[1].prompt
    assert abs(len(asked) - stopped) <= 2, "where the thought ended there may be a token more"
    answer = model.tokenizer.encode_plain(visit.page.locator("article.answer > .prose").inner_text())
    assert metered(visit) < prompt + 2 * len(answer)


def test_effort_and_budget_are_asked_for_and_come_back(visit, model):
    visit.page.get_by_label("Thinking effort").select_option("low")
    visit.page.get_by_role("button", name="Settings of this conversation").click()
    budget = visit.page.get_by_label("Most tokens of a thought")
    budget.fill("-1")
    visit.page.get_by_label("Seed").focus()
    budget.fill("7")
    visit.page.keyboard.press("Escape")
    visit.ask("하나")
    assert model.service.asked[-1].sampling.thinking_budget == 7
    visit.page.get_by_role("button", name="Settings of this conversation").click()
    expect(budget).to_have_value("7")
    budget.fill("")
    visit.page.keyboard.press("Escape")
    visit.page.reload()
    expect(visit.page.get_by_label("Thinking effort")).to_have_value("low")
    visit.ask("둘")
    assert model.service.asked[-1].sampling.thinking_budget == 1024
    visit.page.get_by_label("Thinking effort").select_option("high")
    visit.ask("셋")
    assert model.service.asked[-1].sampling.thinking_budget is None
    visit.button("Think").click()
    expect(visit.page.get_by_label("Thinking effort")).to_have_count(0)
    visit.ask("넷")
    assert model.tokenizer.decode(list(model.service.asked[-1].prompt)).rstrip().endswith("</think>")


def test_a_temporary_chat_is_not_kept_until_it_is_wanted(visit):
    visit.ask("먼저 있던 것")
    dialog = preferences(visit)
    dialog.get_by_role("switch").click()
    expect(dialog).to_contain_text("Kept in")
    visit.page.keyboard.press("Escape")
    visit.button("Keep this conversation").click()
    expect(visit.page.get_by_text("Not kept")).to_have_count(0)
    expect(visit.page.get_by_role("button", name="Keep this conversation")).to_have_count(0)
    visit.button("New chat").click()
    visit.page.get_by_label("Temporary chat").check()
    visit.ask("잠깐 있는 것")
    heads = visit.page.evaluate("fetch('/api/conversations').then((answer) => answer.json())")
    assert [(head["title"], head["kept"]) for head in heads] == [
        ("잠깐 있는 것", False),
        ("먼저 있던 것", True),
    ]
    act(visit, "잠깐 있는 것", "Keep this conversation")
    expect(visit.page.get_by_role("button", name="Keep this conversation")).to_have_count(0)
    heads = visit.page.evaluate("fetch('/api/conversations').then((answer) => answer.json())")
    assert all(head["kept"] for head in heads)


def test_everything_goes_out_comes_in_and_is_deleted(visit, tmp_path):
    visit.ask("하나")
    taken = []
    for form, item in (("json", "Export as JSON"), ("jsonl", "Export for fine-tuning (JSON lines)")):
        with visit.page.expect_download() as download:
            act(visit, "하나", item)
        assert download.value.suggested_filename == f"하나.{form}"
        taken.append(tmp_path / f"one.{form}")
        download.value.save_as(taken[-1])
    whole = json.loads(taken[0].read_text(encoding="utf-8"))
    assert [m["text"] for m in whole["conversations"][0]["messages"]] == ["하나", "네."]
    assert json.loads(taken[1].read_text(encoding="utf-8"))["messages"][-1]["reasoning_content"] == "생각"
    dialog = preferences(visit)
    for name, ending in (("Export everything · JSON", "json"), ("Markdown", "md"), ("JSON Lines", "jsonl")):
        with visit.page.expect_download() as download:
            dialog.get_by_role("button", name=name, exact=True).click()
        assert download.value.suggested_filename == f"clearseek.{ending}"
        assert "하나" in download.value.path().read_text(encoding="utf-8")
    with visit.page.expect_file_chooser() as chooser:
        dialog.get_by_role("button", name="Import").click()
    broken = tmp_path / "notes.json"
    broken.write_text("{}")
    chooser.value.set_files([*taken, broken])
    expect(dialog).to_contain_text("Imported: 2")
    expect(dialog.get_by_role("alert")).to_contain_text("notes.json: there are no conversations")
    expect(visit.page.locator("aside .title")).to_have_text(["하나"] * 3)
    dialog.get_by_role("button", name="Delete everything").click()
    dialog.get_by_role("button", name="Cancel").click()
    expect(visit.page.locator("aside .title")).to_have_count(3)
    dialog.get_by_role("button", name="Delete everything").click()
    dialog.get_by_role("button", name="Delete everything").click()
    expect(visit.page.locator("aside .title")).to_have_count(0)
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("article")).to_have_count(0)
    visit.complaints.clear()  # the browser logs the refused file


def test_what_is_found_in_thoughts_and_files_says_so(visit, model):
    visit.page.locator("input[type=file]").set_input_files(
        {"name": "보고서.txt", "mimeType": "text/plain", "buffer": "가설과 실험".encode()}
    )
    visit.page.locator(".chip").wait_for()
    visit.ask("느리게", waits=False)
    model.service.go_on(parts=2)
    visit.answered()
    search = visit.page.get_by_role("searchbox")
    search.fill("실험")
    expect(visit.page.locator("aside .where")).to_have_text("보고서.txt")
    expect(visit.page.locator("aside mark")).to_have_text("실험")
    search.fill("더한다")
    expect(visit.page.locator("aside .where")).to_have_text("In the thought")
    expect(visit.page.locator("article.answer .thought .body")).to_have_count(0)
    visit.page.locator("aside li .open").click()
    expect(visit.page.locator("article.answer .thought .body")).to_contain_text("더한다")


def test_a_server_with_keys_asks_for_one(browser, model):
    keys = Keys([Key("ann", sha256(b"cs-ann").hexdigest())])
    with live(Registry([model]), Server(port=0, drain_seconds=0), keys) as address:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.goto(address)
        dialog = page.get_by_role("dialog", name="This server needs a key")
        expect(dialog.get_by_role("button", name="Enter")).to_be_disabled()
        for key in ("cs-bo", "cs-ann"):
            expect(page.locator("header .picker")).to_have_count(0)
            dialog.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
        expect(page.locator("header .picker")).to_have_count(1)
        expect(dialog).to_have_count(0)
        page.locator("#message").fill("하나")
        page.keyboard.press("Enter")
        expect(page.locator("article.answer[data-state=done]")).to_contain_text("네.")
        context.close()
