"""Byte-level BPE: train it, open a published one, turn text into token ids and back.

The work is the `tokenizers` library's; what is ours is the split (every digit stays a token of its own), the
special tokens and their order, and a chat encoding that user text cannot break out of.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearseek.config.errors import InputError, RunError
from clearseek.text.chat import DEEPSEEK_TEMPLATE, PLAIN_TEMPLATE, ChatTemplate
from clearseek.text.injection import PlainTextEncoder
from clearseek.text.special_tokens import add_declared_tokens
from clearseek.text.tokenizer_files import (
    TEMPLATE_FILE,
    made_files,
    read_tokenizer_directory,
    write_tokenizer_directory,
)

if TYPE_CHECKING:
    import tokenizers

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK_START, THINK_END = "<think>", "</think>"
SPECIAL_TOKENS = (BOS, EOS, PAD, USER, ASSISTANT, THINK_START, THINK_END)

_OPERATORS = r"\-+*/=×÷^%<>()"
_EAST_ASIAN = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_SPACE_BEFORE_DIGIT = r"(?: (?=\p{N}))?"
_SPACE_BEFORE_SYMBOL = r"(?: (?=[^\s\p{L}]))?"
# Alternatives in order of preference. A single space goes with the word or symbol after it; before a digit,
# which stands alone, it goes with what precedes it, so that "12 + 5 = 17" is 1|2| + |5| = |1|7.
SPLIT_PATTERN = "|".join(
    (
        r"\p{N}",
        rf" ?\p{{Hangul}}+{_SPACE_BEFORE_DIGIT}",
        rf" ?[{_EAST_ASIAN}]+{_SPACE_BEFORE_DIGIT}",
        rf" ?[\p{{L}}\p{{M}}&&[^\p{{Hangul}}{_EAST_ASIAN}]]+(?:['’]\p{{Latin}}+)?{_SPACE_BEFORE_DIGIT}",
        r" ?(?:=>|->|</|/>|\(\)|={2,}|-{3,}|/{2,}|\*{2,})",
        rf" ?[{_OPERATORS}]{_SPACE_BEFORE_SYMBOL}",
        rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}{_OPERATORS}]+(?:[\r\n]+|{_SPACE_BEFORE_DIGIT})",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_DOCUMENTS_PER_BATCH = 8192  # bounds the memory the library's Encoding objects take


class Tokenizer:
    """A byte-level BPE tokenizer with its special tokens and its chat template.

    `encode` adds nothing by itself: the chat template carries the begin-of-sentence token.
    """

    def __init__(
        self,
        backend: "tokenizers.Tokenizer",
        chat: ChatTemplate,
        config: Mapping[str, Any],
        published: Mapping[str, bytes] | None = None,
        end_ids: Iterable[int] = (),
    ) -> None:
        """Wrap `backend`; `config` is a tokenizer_config.json's content, bos/eos/pad as strings or null.

        `published` are the files that the tokenizer came in, by name, which saving writes as they were;
        `end_ids` end a completion besides the tokenizer's own end, as the model's publisher says.
        """
        self._backend = backend
        self._config = dict(config)
        self._published = published
        self.chat = chat
        self.bos_id = self._optional_id(config.get("bos_token"))
        eos_id = self._optional_id(config.get("eos_token"))
        if eos_id is None:
            raise InputError(
                f"tokenizer: eos_token {config.get('eos_token')!r} is not a token of the vocabulary"
            )
        self.eos_id: int = eos_id
        self.stop_ids = frozenset([eos_id, *end_ids])
        pad_id = self._optional_id(config.get("pad_token"))
        self.pad_id: int = eos_id if pad_id is None else pad_id
        self.thought_tags = chat.reply_form.thought
        self.think_start_id = self._optional_id(self.thought_tags.start)
        self.think_end_id = self._optional_id(self.thought_tags.end)

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn a vocabulary of at most `vocab_size`; the same documents give the same tokenizer.

        Raises InputError where `vocab_size` cannot hold the special tokens and the 256 bytes.
        """
        smallest = len(SPECIAL_TOKENS) + 256
        if vocab_size < smallest:
            raise InputError(
                f"vocab_size ({vocab_size}) must be at least {smallest}: special tokens and 256 bytes"
            )
        library = _library()
        backend = library.Tokenizer(library.models.BPE())
        backend.pre_tokenizer = library.pre_tokenizers.Sequence(
            [
                library.pre_tokenizers.Split(library.Regex(SPLIT_PATTERN), "isolated"),
                library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(documents, trainer)
        return cls(
            _with_visible_thought_tags(backend), ChatTemplate(DEEPSEEK_TEMPLATE, BOS, EOS), _OWN_CONFIG
        )

    @classmethod
    def load(cls, directory: Path) -> "Tokenizer":
        """Open a Hugging Face directory's tokenizer; InputError names the file that is missing or broken.

        Its special tokens may be strings or objects, in any of the files that have held them; without an
        eos_token the end is the one that the model's generation_config.json or config.json names.
        """
        files = read_tokenizer_directory(directory)
        try:
            backend = _library().Tokenizer.from_str(files.tokenizer_json)
        except Exception as error:  # the library raises bare Exception for a file that it can't read
            raise InputError(
                f"{directory / 'tokenizer.json'}: not a tokenizer file ({_one_line(error)})"
            ) from error
        try:
            add_declared_tokens(backend, _library(), files.config, files.named)
            ends = (backend.id_to_token(index) for index in files.end_ids)
            end = files.named.get("eos_token") or next(filter(None, ends), None)
            config = {
                **files.config,
                **dict.fromkeys(("bos_token", "pad_token")),
                **files.named,
                "eos_token": end,
            }
            place = f"{directory}: chat template"
            further = {name: text for name, text in files.templates.items() if name != "default"}
            chat = ChatTemplate(
                files.templates["default"], config["bos_token"], end or "", place, files.named, further
            )
            return cls(backend, chat, config, files.published, files.end_ids)
        except InputError as error:
            raise InputError(f"{directory / 'tokenizer_config.json'}: {error}") from None

    def save(self, directory: Path) -> None:
        """Write the directory that transformers' AutoTokenizer opens; raises RunError where it can't.

        One that was loaded is written byte for byte as it was; a base model's gets the template it was
        used with besides.
        """
        files = self._published or made_files(
            self._backend.to_str(pretty=True), self._config, self.chat.source
        )
        if self.chat.source == PLAIN_TEMPLATE:
            files = {**files, TEMPLATE_FILE: PLAIN_TEMPLATE.encode("utf-8")}
        try:
            write_tokenizer_directory(directory, files)
        except OSError as error:
            raise RunError(f"{directory}: the tokenizer could not be written ({error.strerror})") from error

    @cached_property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included, and any ids left out below the last one."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    def require_room(self, num_embeddings: int, place: Path) -> None:
        """Raise InputError where the model at `place` has no embedding for some token."""
        if self.vocab_size > num_embeddings:
            raise InputError(
                f"{place}: the tokenizer has {self.vocab_size} tokens, the model only {num_embeddings}; "
                "put the tokenizer that the model was trained with beside it"
            )

    def has_tokens_of(self, other: "Tokenizer") -> bool:
        """Whether every id stands for the same token in both."""
        return bool(self._backend.get_vocab() == other._backend.get_vocab())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the vocabulary, the merges, the special tokens and the chat template."""
        content = {"tokenizer": json.loads(self._backend.to_str()), "chat": self.chat.source}
        content |= {name: self._config.get(name) for name in ("bos_token", "eos_token", "pad_token")}
        content |= {"templates": self.chat.named} if self.chat.named else {}
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens' strings become those tokens (user text: `encode_plain`)."""
        return self.encode_batch([text])[0]

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of `text` taken as plain text: what looks like a special token in it is only letters."""
        return self.encode_batch([text], plain=True)[0]

    def encode_batch(self, texts: Sequence[str], plain: bool = False) -> list[list[int]]:
        """Token ids of each text, as `encode` gives them, or `encode_plain`."""
        return list(self._encode_each(texts, plain))

    def encode_packed(self, texts: Sequence[str], plain: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """All texts end to end: ids int32 [tokens], and int64 [texts + 1] where each begins and ends."""
        pieces: list[np.ndarray] = []
        lengths: list[int] = []
        encoded = self._encode_each(texts, plain)
        while batch := list(itertools.islice(encoded, _DOCUMENTS_PER_BATCH)):
            counts = [len(ids) for ids in batch]
            pieces.append(np.fromiter(itertools.chain.from_iterable(batch), np.int32, sum(counts)))
            lengths += counts
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return (np.concatenate(pieces) if pieces else np.zeros(0, np.int32)), offsets

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        thinking: bool | None = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> list[int]:
        """Token ids of a conversation as `ChatTemplate.render` writes it, which says what the arguments are.

        Special tokens come from the template alone, never from a message, a tool or a variable. An assistant
        message's own first `<think>` and `</think>` stay tags, for the template to drop or to keep.
        """

        def render(messages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]) -> str:
            switches: dict[str, Any] = {
                "thinking": thinking,
                "continue_final_message": continue_final_message,
            }
            return self.chat.render(messages, add_generation_prompt, **switches, **inputs)

        inputs = {"tools": tools, "documents": documents, **variables}
        exact = render(messages, inputs)
        guarded = self._plain.guard(messages, inputs, (self.thought_tags.start, self.thought_tags.end))
        if guarded is None:
            return self.encode(exact)
        rendered = render(guarded.messages, guarded.inputs)
        return self._plain.encode_guarded(rendered, exact, guarded, self.encode, self.encode_plain)

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of `ids`. `skip_special` leaves out special tokens; thought tags are text and stay."""
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special))

    def to_json(self) -> str:
        """The vocabulary, merges and special tokens as a tokenizer.json's text, for libraries that read one."""
        return str(self._backend.to_str())

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact string, None if the vocabulary has no such token."""
        return self._optional_id(token)

    def token_name(self, token: int) -> str | None:
        """A token's exact string in the vocabulary, None for an id that has none."""
        name = self._backend.id_to_token(token)
        return None if name is None else str(name)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids of the tokens that plain text never becomes: special tokens, thought tags and the like."""
        return frozenset(self._plain.control_ids)

    @cached_property
    def _plain(self) -> PlainTextEncoder:
        return PlainTextEncoder(self._backend, _library())

    def _optional_id(self, token: str | None) -> int | None:
        return None if token is None else self._backend.token_to_id(token)

    def _encode_each(self, texts: Sequence[str], plain: bool) -> Iterator[list[int]]:
        backend = self._plain.backend if plain else self._backend
        for start in range(0, len(texts), _DOCUMENTS_PER_BATCH):
            batch = list(texts[start : start + _DOCUMENTS_PER_BATCH])
            try:
                encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
            except TypeError as error:
                raise _text_error(batch) or error from None
            for encoding in encodings:
                yield encoding.ids


_OWN_CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": BOS,
    "eos_token": EOS,
    "pad_token": PAD,
    "add_bos_token": False,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
}


def _library() -> Any:
    """The `tokenizers` library, imported at first use, its threads settled for this process and forks."""
    if "TOKENIZERS_PARALLELISM" not in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        if hasattr(os, "register_at_fork"):
            # Threads don't survive a fork: a child that encoded in parallel would wait forever.
            os.register_at_fork(after_in_child=_encode_serially)
    import tokenizers

    return tokenizers


def _encode_serially() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _with_visible_thought_tags(backend: "tokenizers.Tokenizer") -> "tokenizers.Tokenizer":
    """The same with the thought tags not special: decoding without specials keeps them, as DeepSeek's."""
    content = json.loads(backend.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] not in (THINK_START, THINK_END)
    return _library().Tokenizer.from_str(json.dumps(content))


def _text_error(texts: Sequence[str]) -> InputError | None:
    """What is wrong with the first text that the library can't take, None if each is well formed."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            near = text[max(0, error.start - 20) : error.end]
            return InputError(f"text holds half a character (a lone surrogate) after {near!r}")
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
