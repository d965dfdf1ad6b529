"""The tokenizer stage: a vocabulary learnt from the recipe's documents."""

from typing import Any

from clearseek.config.recipe import DataSource, TokenizerStage
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.kept import documents_sha256, text_of
from clearseek.train.context import StageContext
from clearseek.train.corpus import keep_documents, open_documents, problem_examples


def run_tokenizer(context: StageContext, stage: TokenizerStage) -> Tokenizer:
    """Train a byte-level BPE tokenizer on every source's documents; one `data` record, `kept` by source."""
    texts: list[str] = []
    kept = [_add_texts(texts, context, source, i) for i, source in enumerate(stage.data)]
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


def _add_texts(texts: list[str], context: StageContext, source: DataSource, index: int) -> dict[str, Any]:
    """Add a source's documents to `texts`; how they are kept."""
    if source.problems is not None:
        found = [text_of(example) for example in problem_examples(context, source, index)]
        kept = {"kept": "generated", "documents_sha256": documents_sha256(found)}
    else:
        opened = open_documents(context, source)
        if source.hold_out_every:
            opened, _ = opened.split(source.hold_out_every)
        chosen = list(opened)[: source.count or None]
        found = [text_of(document) for document in chosen]
        kept = keep_documents(context, source, index, chosen)
    texts += found
    return kept
