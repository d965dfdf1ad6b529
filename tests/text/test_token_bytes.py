"""The bytes of each token: together they are the text."""

from clearseek.text.token_bytes import token_bytes
from clearseek.text.tokenizer import Tokenizer


def test_tokens_bytes_joined_are_the_text_s():
    tokenizer = Tokenizer.train(("먼저 12 + 5 = 17 입니다.", "首先计算") * 9, 300)
    text = "먼저 12 + 5 = 17?\n首先\t龘😀 <think>é"
    tokens = tokenizer.encode_plain(text)
    assert any("�" in tokenizer.decode([token]) for token in tokens)
    assert b"".join(token_bytes(tokenizer, token) for token in tokens) == text.encode()
