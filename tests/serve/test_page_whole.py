"""The page as a whole: nobody is shut out, nothing is fetched from elsewhere, nothing is left on disk, it is small."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from clearseek.config.server import Server
from clearseek.serve.keys import Key, Keys
from clearseek.serve.page import site
from clearseek.serve.registry import Registry
from tests.serve.live import live
from tests.serve.page import CHROMIUM, Visit, needs_browser, served, talking

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
RICH = r"""생각: $x^2$ 을 본다.</think># 제목

**"강화학습"**은 어렵고 这是**“注意”**的。 `코드` 와 [주소](https://example.com/a) ![그림](https://evil.example/x.png?q=1)

| 값 | 수 |
|---|---|
| a | 1 |

```python
def add(a, b):  # 더하기
    return a + b
```

\[ \int_0^1 x^2\,dx = \frac{1}{3} \]

```mermaid
graph LR
  A[Start] --> B[End]
```

끝 \(e^{i\pi}=-1\) <img src=x onerror=alert(1)>
"""


@pytest.fixture
def model(tokenizer):
    return talking(tokenizer, says={"그려": RICH}, tokens_at_once=20)


@needs_browser
def test_markdown_is_drawn_and_nothing_is_fetched(browser, model):
    with served(model) as address, Visit(browser, address) as visit:
        visit.ask("그려")
        prose = visit.page.locator("article.answer > .prose")
        expect(prose.locator("strong")).to_have_text(['"강화학습"', "“注意”"])
        expect(prose.locator("figure[data-language=python] .hljs-keyword")).to_have_text(["def", "return"])
        expect(prose.locator("math[display=block]")).to_have_count(1)
        expect(prose.locator("math")).to_have_count(2)
        picture = prose.locator("figure.drawn img")
        picture.wait_for(timeout=30_000)
        assert picture.evaluate("async one => (await one.decode(), one.naturalWidth)") > 50
        assert prose.locator("img").count() == 1, "no picture but the diagram"
        expect(prose.locator("td").first).to_have_text("a")
        prose.get_by_role("button", name="Copy").first.click()
        visit.expect_copied("def add(a, b):  # 더하기\n    return a + b\n")


def complaints_of_axe(page):
    """What axe finds on the page as it is now."""
    find = AXE.read_text() + "; axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    return [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in page.evaluate(find)]


needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not here; make page")


@needs_browser
@needs_axe
@pytest.mark.parametrize(
    ("language", "scheme"), [("en-US", "light"), ("ko-KR", "dark"), ("zh-CN", "light"), ("en-US", "dark")]
)
def test_nobody_is_shut_out(browser, model, tmp_path, language, scheme):
    models = (model, talking(model.tokenizer, "other"))
    with (
        served(*models, history=tmp_path) as address,
        Visit(browser, address, language, color_scheme=scheme) as visit,
    ):
        seen = []

        def look(where):
            seen.extend((where, *one) for one in complaints_of_axe(visit.page))

        look("empty")
        visit.ask("그려")
        visit.page.locator(".fold").click()
        visit.page.locator("article.answer").hover()
        visit.page.locator("figure.drawn").wait_for(timeout=30_000)
        look("answer")
        for name in (
            "Settings",
            "설정",
            "设置",
            "Preferences",
            "환경",
            "偏好",
            "Keyboard",
            "단축키",
            "快捷键",
        ):
            button = visit.page.get_by_role("button", name=name)
            if button.count():
                button.first.click()
                visit.page.get_by_role("dialog").wait_for()
                look(name)
                visit.page.keyboard.press("Escape")
        visit.complaints.clear()
        assert seen == []


@needs_browser
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out_of_menus_dialogs_and_comparisons(browser, model, tmp_path, scheme):
    other = talking(model.tokenizer, "other", otherwise="x</think>[page 2]")
    with (
        served(model, other, history=tmp_path) as address,
        Visit(browser, address, color_scheme=scheme) as visit,
    ):
        seen, page = [], visit.page

        def look(where):
            page.mouse.move(0, 0)
            seen.extend((where, *one) for one in complaints_of_axe(page))

        def look_at(where, *names):
            """Open something by buttons, look, and leave it."""
            for name in names:
                page.get_by_role("button", name=name).last.click()
            page.get_by_role("dialog").wait_for()
            look(where)
            page.keyboard.press("Escape")
            page.get_by_role("dialog").wait_for(state="detached")

        lines = "\n".join(f"line {number}" for number in range(200)).encode()
        files = [{"name": name, "mimeType": "text/plain", "buffer": lines} for name in ("a.txt", "b.txt")]
        page.locator("input[type=file]").set_input_files(files)
        page.locator(".chip").nth(1).wait_for()
        look("files")
        look_at("file", "b.txt 4 pages")
        visit.button("Compare").click()
        visit.ask("12", waits=False)
        expect(page.locator(".pair article.answer[data-state=done]")).to_have_count(2)
        look("compare")
        look_at("page", "[page 2]")
        look_at("tree", "Branches")
        page.locator("article.said").hover()
        visit.button("Edit").click()
        look("editor")
        page.keyboard.press("Escape")
        page.get_by_role("searchbox").fill("line 199")
        page.locator("aside .where").wait_for()
        look("found")
        page.get_by_role("searchbox").fill("")
        for item in ("Rename", "Folder", "Delete"):
            page.locator("aside li").hover()
            page.get_by_role("button", name="More about").click()
            look("menu")
            page.get_by_role("menuitem", name=item).click()
            page.get_by_role("dialog").wait_for()
            look(item)
            page.keyboard.press("Escape")
            page.get_by_role("dialog").wait_for(state="detached")
        page.get_by_role("button", name="Preferences").click()
        page.get_by_role("switch").click()
        look("keeping")
        visit.button("Encrypt with a passphrase").click()
        look("passphrase")
        visit.button("Delete everything").click()
        look("deleting")
        page.keyboard.press("Escape")
        visit.button("Keep this conversation").wait_for()
        look("to be kept")
        assert seen == []


@needs_browser
@needs_axe
def test_nobody_is_shut_out_of_a_server_with_keys(browser, model):
    with live(Registry([model]), Server(port=0), Keys([Key("ann", "0" * 64)])) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("dialog", name="This server needs a key").wait_for()
        assert complaints_of_axe(page) == []
        page.close()


@needs_browser
def test_the_first_load_is_small_and_asks_nobody_else(browser, model):
    with served(model) as address, Visit(browser, address) as visit:
        urls = [url for url in dict.fromkeys(visit.asked) if "/api/" not in url]
        assert all(url.startswith(address) for url in visit.asked)
        sizes = {}
        for url in urls:
            with httpx.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
                sizes[url] = sum(len(piece) for piece in answer.iter_raw())
        assert any(url.endswith(".js") for url in urls)
        assert sum(sizes.values()) <= 150_000, sizes


@needs_browser
def test_no_font_is_sent(model):
    fonts = [
        path.name for path in site.STATIC.rglob("*") if path.suffix in (".woff", ".woff2", ".ttf", ".otf")
    ]
    sheets = "".join(path.read_text() for path in site.STATIC.glob("assets/*.css"))
    assert (fonts, "@font-face" in sheets) == ([], False)


LEFT = """(() => {
  const one = document.querySelector('.scroller');
  return one.scrollHeight - one.scrollTop - one.clientHeight;
})()"""


@needs_browser
def test_the_end_stays_in_sight_though_diagrams_are_drawn_late(browser, model):
    small = {"width": 900, "height": 460}
    with served(model) as address, Visit(browser, address, viewport=small) as visit:
        for _ in range(2):
            visit.ask("그려")
        visit.page.locator("figure.drawn img").nth(1).wait_for(timeout=30_000)
        visit.page.wait_for_timeout(300)
        assert visit.page.evaluate(LEFT) < 40
        visit.page.locator(".scroller").hover()
        visit.page.mouse.wheel(0, -300)
        visit.button("Jump to latest").wait_for()
        assert visit.page.evaluate(LEFT) > 200
        visit.button("Jump to latest").click()
        visit.page.wait_for_function(f"() => {LEFT} < 40")


@needs_browser
def test_the_page_keeps_to_its_policy(model):
    with served(model) as address:
        answer = httpx.get(address)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert "<style" not in answer.text
    assert "<script>" not in answer.text
    assert "//" not in answer.text.replace(address, "")


@needs_browser
def test_what_is_typed_with_history_off_is_nowhere_on_disk(browser, tmp_path):
    canary = os.urandom(8).hex()
    home = tmp_path / "home"
    home.mkdir()
    places = {
        name: str(home) for name in ("HOME", "TMPDIR", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    }
    command = [sys.executable, "-m", "clearseek", "serve", "clearseek/models/r1-mini", "--port", "0"]
    there = {name: str(home) for name in places if name != "TMPDIR"}  # whose sockets need a short one
    environment = os.environ | places | {"OMP_NUM_THREADS": "1"}
    log = (tmp_path / "log.txt").open("w+")
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        context = browser.browser_type.launch_persistent_context(
            str(tmp_path / "profile"),
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"],
            env=os.environ | there,
        )
        page = context.pages[0]
        page.goto(address)
        page.get_by_role("button", name="Settings of this conversation").click()
        page.get_by_label("System prompt").fill(f"system {canary}")
        page.keyboard.press("Escape")
        page.locator("#message").fill(f"What is 17+25? {canary}")
        page.keyboard.press("Enter")
        page.locator("article.answer:not([data-state=writing])").wait_for()
        page.get_by_role("searchbox").fill(canary)
        expect(page.locator("aside .excerpt")).to_have_count(1)
        page.get_by_role("searchbox").fill("")
        page.reload()
        expect(page.locator("article.said")).to_contain_text(canary)
        page.locator("#message").fill(f"a draft {canary}")
        page.wait_for_timeout(1500)
        context.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()
    seen = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("profile" in str(path) for path in seen)
    forms = (canary.encode(), canary.encode("utf-16-le"))
    assert [path for path in seen if any(form in path.read_bytes() for form in forms)] == []


def test_a_server_without_the_page_says_how_it_is_built(model, monkeypatch, tmp_path):
    monkeypatch.setattr(site, "STATIC", tmp_path)
    with served(model) as address:
        answer = httpx.get(address)
    assert answer.status_code == 503
    assert answer.text == site.not_built() + "\n"
    assert f"python {ROOT / 'hatch_build.py'} (" in answer.text
    monkeypatch.setattr(site, "_BUILDER", tmp_path / "hatch_build.py")  # as where it was installed by pip
    assert "pip install --force-reinstall --no-deps --no-cache-dir clearseek" in site.not_built()
    assert len(site.not_built().splitlines()) == 1
