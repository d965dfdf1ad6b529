"""The tokenizer stage: a vocabulary learnt from the recipe's documents."""

from clearseek.config.recipe import TokenizerStage
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.context import StageContext
from clearseek.train.corpus import read_source


def run_tokenizer(context: StageContext, stage: TokenizerStage) -> Tokenizer:
    """Train a byte-level BPE tokenizer on every source's documents; one `data` record, `kept` by source."""
    given = [read_source(context, source, i) for i, source in enumerate(stage.data)]
    texts = [text for each in given for text in each.texts]
    kept = [dict(each.kept) for each in given]
    outputs = [file for table in kept for file in table.pop("outputs", [])]
    tokenizer = Tokenizer.train(texts, stage.vocab_size)
    context.record(
        "data",
        source="documents",
        fingerprint=tokenizer.fingerprint,
        documents=len(texts),
        tokens=sum(len(text) for text in texts),
        train_held_out_overlap=0,
        sources=kept,
        outputs=outputs,
    )
    return tokenizer
