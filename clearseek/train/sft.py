"""Supervised fine-tuning and distillation: learn completions, read prompts.

R1 was distilled by its kept answers alone (arXiv:2501.12948 §2.4), so a student learns as anyone learns from
examples; only where they come from differs.
"""

from clearseek.config.recipe import DistillStage, SftStage
from clearseek.model.decoder import Decoder
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.context import StageContext
from clearseek.train.corpus import build_rows
from clearseek.train.supervised import SupervisedTrainer, steps_for_epochs


def fine_tuner(
    context: StageContext, stage: SftStage | DistillStage, model: Decoder, tokenizer: Tokenizer
) -> SupervisedTrainer:
    """What trains `model` in place for the stage's epochs."""
    rows = build_rows(context, stage.data, tokenizer, stage.sequence_length, "best_fit")
    steps = steps_for_epochs(stage.epochs, len(rows), stage.batch_rows)
    return SupervisedTrainer(context, stage, model, tokenizer, rows, steps)
