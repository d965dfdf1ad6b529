"""What vLLM's parsers read from replies; run by the environment that has vLLM. Cases come and go as one JSON list."""

import json
import os
import sys

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager


def tokenizer_of(special):
    """Bytes, and the special tokens that a family has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner, token_suffix=":o"
    )  # Hy3's, where it is asked for
    wrapped.add_tokens(special, special_tokens=True)
    return wrapped


def read(case):
    """One reply's thought, content and calls, by one pair of parsers."""
    tokenizer = tokenizer_of(case["special"])
    kind = ParserManager.get_parser(case["tools"], case["thoughts"], enable_auto_tools=True)
    asked = {"messages": [{"role": "user", "content": "?"}], "tools": case["functions"]}
    asked["chat_template_kwargs"] = {"reasoning_effort": "high"}  # Hy3's thinks where it was asked to
    request = ChatCompletionRequest.model_validate({"model": "m", **asked})
    parser = kind(tokenizer, request.tools, chat_template_kwargs=asked["chat_template_kwargs"])
    ids = tokenizer.encode(case["text"], add_special_tokens=False)
    thought, content, calls = parser.parse(case["text"], request, True, ids)
    found = [[call.name, json.loads(call.arguments)] for call in calls or []]
    return {"thought": thought or "", "content": content or "", "calls": found}


if __name__ == "__main__":
    told = []
    for asked in json.load(sys.stdin):
        try:
            told.append(read(asked))
        except Exception as error:  # noqa: BLE001  a parser of theirs that fails is an answer, too
            told.append({"error": f"{type(error).__name__}: {error}"})
    print(json.dumps(told, ensure_ascii=False))
