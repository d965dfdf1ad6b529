"""The pictures of the README: what the page looks like, as this test found it."""

from pathlib import Path

import pytest

from clearseek.config.server import Server
from clearseek.config.shipped import shipped_model
from clearseek.serve.open import How, open_model
from tests.serve.live import tiny_tokenizer
from tests.serve.page import Visit, browsing, needs_browser, served, talking

pytestmark = needs_browser
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"
THOUGHT = "목적 함수를 물었다. 먼저 한 문장으로 정의하고, 식을 쓴 다음, 짧은 코드로 보여 주자."
ANSWER = r"""**강화학습(RL)**은 에이전트가 **“보상”**을 늘리도록 행동을 배우는 방법입니다.

$$J(\theta) = \mathbb{E}_{\pi_\theta}\left[\sum_t \gamma^t r_t\right]$$

```python
def step(policy, state):
    return policy.sample(state)  # 행동을 하나 고른다
```
"""


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


def test_the_model_that_comes_along(browser):
    model = open_model("r1-mini", shipped_model(), Server(max_running=2), How(device="cpu"))
    with served(model) as address, Visit(browser, address, viewport={"width": 1120, "height": 640}) as visit:
        visit.page.get_by_role("button", name="What is 17+25?").click()
        visit.page.keyboard.press("Enter")
        visit.answered()
        visit.page.locator(".fold").click()
        visit.page.locator(".thought .body").wait_for()
        taken(visit, "page.png")


def test_korean_at_night_on_a_phone(browser):
    model = talking(tiny_tokenizer(), otherwise=f"{THOUGHT}</think>{ANSWER}", tokens_at_once=20, seconds=0.01)
    phone = {
        "viewport": {"width": 390, "height": 760},
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
    }
    with served(model) as address, Visit(browser, address, "ko-KR", **phone) as visit:
        visit.page.locator("#message").fill("강화학습의 목적 함수가 뭐야?")
        visit.button("보내기").tap()
        visit.answered()
        visit.page.locator(".katex").wait_for()
        visit.page.locator(".hljs-keyword").first.wait_for()
        taken(visit, "page-ko.png")


def taken(visit, name):
    """A picture, which has something in it and stays small."""
    visit.page.wait_for_timeout(300)
    PICTURES.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=PICTURES / name)
    assert 10_000 < (PICTURES / name).stat().st_size < 150_000
