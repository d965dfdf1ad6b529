"""The button that leads from an answer to the training data, for a model whose run is here."""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from clearseek.trace.excerpt import pack_run
from tests.serve.page import Visit, browsing, needs_browser, served, talking
from tests.trace.traced_run import PAGES, traced_run

COPIED = PAGES["ko"].format(n=3, m=24)
OWN = "이 말은 어디에도 없습니다, quite surely zebra xylophone quark."


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield traced_run(tmp_path_factory.mktemp("traced"))[0]


@pytest.fixture
def address(run, tokenizer, tmp_path):
    says = {"베껴": f"</think>{COPIED}", "네 말로": f"</think>{OWN}", "속으로": f"{COPIED}</think>네."}
    made_here = talking(tokenizer, "made-here", says=says)
    made_here.root = str(run / "checkpoints" / "sft")
    brings_run = talking(tokenizer, "brings-run", says=says)
    brings_run.root = str(tmp_path / "brings-run")
    shutil.copytree(run / "checkpoints" / "sft", brings_run.root)
    pack_run(run, Path(brings_run.root), "sft")
    elsewhere = talking(tokenizer, "elsewhere", says={}, otherwise="</think>네.")
    with served(made_here, brings_run, elsewhere, history=tmp_path) as address:
        yield address


def asked(address: str, path: str, body: dict | None = None) -> tuple[int, dict]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("model", ["made-here", "brings-run"])
def test_an_answer_is_traced_to_document_and_steps(address, model):
    status, found = asked(address, "/api/trace", {"model": model, "text": COPIED})
    assert status == 200
    (span,) = found["spans"]
    assert span["text"] in COPIED
    assert len(span["text"]) > 20
    assert span["documents"][0]["place"] == "ko/03.md"
    (seen,) = span["documents"][0]["seen"]
    assert seen["stage"] == "pretrain"
    assert seen["steps"]
    assert len(seen["steps"]) == len(seen["learning_rates"])


def test_only_a_model_with_its_run_has_training_data(address):
    _, models = asked(address, "/api/models")
    assert {one["name"]: one["traced"] for one in models} == {
        "made-here": True,
        "brings-run": True,
        "elsewhere": False,
    }
    status, error = asked(address, "/api/trace", {"model": "elsewhere", "text": "words"})
    assert status == 404
    assert "the run that made elsewhere isn't here" in error["error"]["message"]


def test_an_empty_text_and_an_unknown_model_say_so(address):
    status, error = asked(address, "/api/trace", {"model": "made-here", "text": "  "})
    assert status == 400
    assert "no text to trace" in error["error"]["message"]
    assert asked(address, "/api/trace", {"model": "nobody", "text": "x"})[0] == 404


@needs_browser
@pytest.mark.parametrize(
    ("language", "button", "none", "matches"),
    [
        ("en-US", "Trace to training data", "No passage of 8 tokens", "match what the model was trained on"),
        ("ko-KR", "학습 데이터에서 찾기", "8토큰 이상 일치하는 대목이 없습니다", "학습한 글과 일치합니다"),
        ("zh-CN", "在训练数据中查找", "没有 8 个词元以上", "与模型的训练数据一致"),
    ],
)
def test_the_button_under_an_answer(address, language, button, none, matches):
    with browsing() as browser, Visit(browser, address, language) as visit:
        visit.ask("베껴 줘")
        visit.button(button).click()
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_text(matches).wait_for()
        expect(dialog).to_contain_text("ko/03.md")
        expect(dialog).to_contain_text("pretrain")
        visit.page.keyboard.press("Escape")
        visit.ask("속으로 생각해")
        visit.button(button).last.click()
        dialog.get_by_text(matches).wait_for()
        visit.page.keyboard.press("Escape")
        visit.ask("네 말로")
        visit.button(button).click()
        visit.page.get_by_role("dialog").get_by_text(none).wait_for()
