"""One small trained tokenizer for the room's tests."""

import pytest

from clearseek.text.tokenizer import Tokenizer

PHRASES = (
    "Let me check: 12 + 5 = 17, so the answer is 17.\n",
    "먼저 12 + 5 = 17 이므로 답은 17 입니다. 다시 확인하면 맞습니다.\n",
    "首先计算 12 + 5 = 17，所以答案是 17。再检查一下，正确。\n",
    "<div class='page'>x = -3 * (4 - y) / 2 // {{code}} => done</div>\n",
)


@pytest.fixture(scope="session")
def phrases() -> tuple[str, ...]:
    """What the tokenizer below was trained on, twenty times over."""
    return PHRASES


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Three languages, 512 tokens."""
    return Tokenizer.train(PHRASES * 20, 512)
