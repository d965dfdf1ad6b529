"""A base model in Hugging Face format for the room's tests: random weights, a real tokenizer."""

from pathlib import Path

import torch

from clearseek.config.model import ModelConfig
from clearseek.model.checkpoint import save_model
from clearseek.model.decoder import Decoder
from clearseek.text.tokenizer import Tokenizer

TINY = {
    "family": "qwen3",
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "tie_word_embeddings": True,
}


def make_base(directory: Path, texts: list[str], vocab_size: int = 320, context: int = 512) -> Path:
    """A directory that a user might bring, its tokenizer trained on `texts`."""
    tokenizer = Tokenizer.train(texts, vocab_size)
    shape = TINY | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": context}
    model = Decoder(ModelConfig.model_validate(shape))
    model.initialise(torch.Generator().manual_seed(0))
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory
