"""The picture of the README: what the page looks like, as this test found it."""

from pathlib import Path

import pytest

from clearseek.config.server import Server
from clearseek.config.shipped import shipped_model
from clearseek.serve.open import How, open_model
from tests.serve.page import Visit, needs_browser, served

pytestmark = needs_browser
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"


def test_the_model_that_comes_along(browser):
    model = open_model("r1-mini", shipped_model(), Server(max_running=2), How(device="cpu"))
    with served(model) as address, Visit(browser, address, viewport={"width": 1120, "height": 640}) as visit:
        visit.page.get_by_role("button", name="What is 17+25?").click()
        visit.page.keyboard.press("Enter")
        visit.answered()
        visit.page.locator(".fold").click()
        visit.page.locator(".thought .body").wait_for()
        taken(visit, "page.png")


ANSWERS = {
    "en-US": ["42", "Friday", "63,59,15", "39"],
    "ko-KR": ["42", "금요일", "63,59,15", "39"],
    "zh-CN": ["42", "星期五", "63,59,15", "39"],
}


@pytest.mark.parametrize("language", ANSWERS)
def test_it_can_do_what_the_empty_page_offers(browser, language):
    """Its likeliest answers; what it draws may be others."""
    model = open_model("r1-mini", shipped_model(), Server(max_running=2), How(device="cpu"))
    model.defaults = {**model.defaults, "temperature": 0.0}
    with served(model) as address, Visit(browser, address, language) as visit:
        for place, answer in enumerate(ANSWERS[language]):
            visit.page.locator("button.new").click()
            visit.page.locator(".examples button").nth(place).click()
            visit.page.keyboard.press("Enter")
            assert visit.answered().locator("> .prose").inner_text().strip() == answer


def taken(visit, name):
    """A picture, which has something in it and stays small."""
    visit.page.wait_for_timeout(300)
    PICTURES.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=PICTURES / name)
    assert 10_000 < (PICTURES / name).stat().st_size < 150_000
