"""A small base as someone might publish it; its fixtures are `base` and `model` in conftest.py."""

from clearseek.model.checkpoint import save_model
from tests.model.every_family import small
from tests.model.tiny import tiny_model

PHRASES = ("Let me check: 12 + 5 = 17.", "먼저 12 + 5 = 17 입니다.", "首先计算 12 + 5 = 17，正确。") * 20
QUESTION = "12 + 5?"


def save(directory, tokenizer, family="qwen3", context=128, std=0.2):
    """A base as someone might publish it, with files that we would not write ourselves."""
    config = small(family, vocab_size=tokenizer.vocab_size, max_position_embeddings=context)
    model = tiny_model(config, std=std)
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return model
