"""The bytes that one token stands for, also where they are no whole character."""

from functools import cache

from clearseek.text.tokenizer import Tokenizer

_HALF = "�"


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """What a token adds to a text that goes on: with its space, where its vocabulary has that at the front."""
    alone = tokenizer.decode([token])
    text = tokenizer.decode([token, token])[len(alone) :]
    name = tokenizer.token_name(token)
    if _HALF not in text or name is None:
        return text.encode()
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):  # SentencePiece's byte fallback
        return bytes([int(name[3:5], 16)])
    table = _bytes_by_character()
    return bytes(table[character] for character in name) if set(name) <= set(table) else text.encode()


@cache
def _bytes_by_character() -> dict[str, int]:
    """Byte-level BPE's alphabet (GPT-2): printable bytes stand for themselves, others for characters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
