"""Bits per byte on held-out documents: a loss that does not depend on the tokenizer."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from clearseek.model.decoder import Decoder
from clearseek.model.log_probs import token_log_probs
from clearseek.text.tokenizer import Tokenizer

_ROWS = 16


@torch.no_grad()
def bits_per_byte(
    model: Decoder, tokenizer: Tokenizer, texts: Sequence[str], length: int, dtype: torch.dtype
) -> float:
    """−Σ log₂ p of all tokens of all texts ÷ their UTF-8 bytes.

    Each text is read in windows of `length` predictions that overlap by half, so that every token but the
    first window's has at least half a window of context; the first token follows the begin-of-sentence token.
    """
    device, was_training = model.embedding.weight.device, model.training
    model.eval()
    windows = [window for text in texts for window in windows_of(tokenizer, text, length)]
    nats = 0.0
    for start in range(0, len(windows), _ROWS):
        part = windows[start : start + _ROWS]
        tokens = torch.full((len(part), length + 1), tokenizer.pad_id, dtype=torch.long)
        counted = torch.zeros(len(part), length)
        for row, (ids, first) in enumerate(part):
            tokens[row, : len(ids)] = torch.from_numpy(ids)
            counted[row, first : len(ids) - 1] = 1
        segments = torch.ones_like(tokens)
        tokens, segments = tokens.to(device), segments.to(device)
        states = model(tokens[:, :-1], segments[:, :-1], dtype, 0).states
        log_probs = token_log_probs(model.logits(states), tokens[:, 1:])
        nats -= float((log_probs.cpu() * counted).sum())
    model.train(was_training)
    return nats / math.log(2) / max(sum(len(text.encode()) for text in texts), 1)


def windows_of(tokenizer: Tokenizer, text: str, length: int) -> list[tuple[np.ndarray, int]]:
    """Token windows of one text and the first prediction of each that counts."""
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    ids = np.array([start, *tokenizer.encode_plain(text)])
    stride, windows, done = max(length // 2, 1), [], 0
    for begin in range(0, max(len(ids) - 1, 1), stride):
        end = min(begin + length + 1, len(ids))
        windows.append((ids[begin:end], done - begin))
        done = end - 1
        if end == len(ids):
            break
    return windows
