"""Pretraining: predict every token of packed documents."""

from clearseek.config.recipe import PretrainStage
from clearseek.model.decoder import Decoder
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.context import StageContext
from clearseek.train.corpus import build_rows
from clearseek.train.supervised import steps_for_tokens, train_on_rows


def run_pretrain(
    context: StageContext, stage: PretrainStage, model: Decoder, tokenizer: Tokenizer
) -> dict[str, float]:
    """Train `model` in place for the stage's token budget; returns totals."""
    rows = build_rows(context, stage.data, tokenizer, stage.sequence_length, stage.packing)
    steps = steps_for_tokens(stage.tokens, stage.batch_rows, stage.sequence_length)
    return train_on_rows(context, stage, model, tokenizer, rows, steps, stage.batch_rows)
