"""Pretraining: predict every token of packed documents."""

from clearseek.config.recipe import PretrainStage
from clearseek.model.decoder import Decoder
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.context import StageContext
from clearseek.train.corpus import build_rows
from clearseek.train.supervised import SupervisedTrainer, steps_for_tokens


def pretrainer(
    context: StageContext, stage: PretrainStage, model: Decoder, tokenizer: Tokenizer
) -> SupervisedTrainer:
    """What trains `model` in place for the stage's token budget."""
    rows = build_rows(context, stage.data, tokenizer, stage.sequence_length, stage.packing)
    steps = steps_for_tokens(stage.tokens, stage.batch_rows, stage.sequence_length)
    return SupervisedTrainer(context, stage, model, tokenizer, rows, steps)
