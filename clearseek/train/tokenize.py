"""The tokenizer stage: a vocabulary learnt from the recipe's documents."""

from collections.abc import Iterator

from clearseek.config.recipe import DataSource, TokenizerStage
from clearseek.text.documents import Conversation
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.context import StageContext
from clearseek.train.corpus import open_documents, problem_examples


def run_tokenizer(context: StageContext, stage: TokenizerStage) -> Tokenizer:
    """Train a byte-level BPE tokenizer on every source's documents."""
    texts = [text for i, source in enumerate(stage.data) for text in _texts(context, source, i)]
    tokenizer = Tokenizer.train(texts, stage.vocab_size)
    characters = sum(len(text) for text in texts)
    context.record("data", source="documents", fingerprint=tokenizer.fingerprint, documents=len(texts),
                   tokens=characters, train_held_out_overlap=0)  # fmt: skip
    return tokenizer


def _texts(context: StageContext, source: DataSource, index: int) -> Iterator[str]:
    if source.problems is not None:
        for example in problem_examples(context, source, index):
            yield f"{example.prompt}\n{example.thought}\n{example.answer}"
        return
    opened = open_documents(context, source)
    if source.hold_out_every:
        opened, _ = opened.split(source.hold_out_every)
    for document in list(opened)[: source.count or None]:
        if isinstance(document, Conversation):
            yield "\n".join([*(m["content"] for m in document.history), document.thought, document.answer])
        else:
            yield document.text
