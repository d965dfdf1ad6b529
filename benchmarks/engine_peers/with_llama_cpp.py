"""llama.cpp as a worker: its library by the bindings that its source distribution carries.

Straight on the library and not through its server: no HTTP and no sampler chain stand between it and its best figures.
"""

import ctypes
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from lines import Completions, Unsupported, serve

BATCH_TOKENS = 2048  # of one call, the library's own default
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def bindings(folder: Path) -> Any:
    """The module of C functions in `folder`/llama_cpp, without what that package imports beside it."""
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder / "build" / "bin")
    package = types.ModuleType("llama_cpp")
    package.__path__ = [str(folder / "llama_cpp")]
    sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


class LlamaCpp:
    """A GGUF file and a context, whose sequences are made for each kind of question."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.context, self.made_for = folder, None, (0, 0)

    def load(self, path: str, format_name: str) -> dict[str, Any]:
        """Open a GGUF file; its own layouts of the weights for this processor are on, as by default.

        But where it aborts with them: for latent attention in 8 and 4 bits (`ggml_backend_sched_split_graph`).
        """
        self.llama = llama = bindings(self.folder)
        llama.llama_backend_init()
        settings = llama.llama_model_default_params()
        self.model = self._opened(path, settings)
        if format_name in ("int8", "int4") and self._architecture() == "deepseek2":
            llama.llama_model_free(self.model)
            settings.use_extra_bufts = False
            self.model = self._opened(path, settings)
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.batch = llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        self.random = np.random.default_rng(0)
        return {"version": (self.folder / "version").read_text(encoding="utf-8").strip()}

    def _opened(self, path: str, settings: Any) -> Any:
        model = self.llama.llama_model_load_from_file(path.encode(), settings)
        if not model:
            raise RuntimeError(f"llama.cpp can't open {path}")
        return model

    def _architecture(self) -> str:
        name = ctypes.create_string_buffer(64)
        self.llama.llama_model_meta_val_str(self.model, b"general.architecture", name, len(name))
        return name.value.decode()

    def generate(
        self, prompts: list[list[int]], max_tokens: int, samples: int, temperature: float, shares: bool
    ) -> Completions:
        """As `lines.Engine` says. A prompt is read once; its further samples get copies of its cache."""
        if shares and len(prompts) > 1:
            raise Unsupported("its server shares nothing between prompts that are answered at once")
        llama, length = self.llama, len(prompts[0])
        self._make_context(len(prompts) * samples, length + max_tokens)
        memory = llama.llama_get_memory(self.context)
        llama.llama_memory_clear(memory, False)
        rows = self._read(prompts, samples)
        for sequence in range(len(prompts) * samples):
            if first := sequence % samples:
                llama.llama_memory_seq_cp(memory, sequence - first, sequence, -1, -1)
        drawn = self._draw(np.repeat(rows, samples, axis=0), temperature)
        found = [drawn]
        for place in range(length, length + max_tokens - 1):
            entries = [(int(token), place, sequence, True) for sequence, token in enumerate(drawn)]
            drawn = self._draw(self._decode(entries), temperature)
            found.append(drawn)
        return np.stack(found, axis=1).tolist(), None

    def _read(self, prompts: list[list[int]], samples: int) -> np.ndarray:
        """Scores [prompts, V] after each prompt's last token; prompt i is sequence i · samples."""
        entries = [
            (token, place, number * samples, place == len(ids) - 1)
            for number, ids in enumerate(prompts)
            for place, token in enumerate(ids)
        ]
        parts = [entries[start : start + BATCH_TOKENS] for start in range(0, len(entries), BATCH_TOKENS)]
        return np.concatenate([self._decode(part).copy() for part in parts])

    def _decode(self, entries: list[tuple[int, int, int, bool]]) -> np.ndarray:
        """Run (token, position, sequence, wanted) through the model: scores [wanted ones, V], until the next call."""
        batch = self.batch
        for index, (token, place, sequence, wanted) in enumerate(entries):
            batch.token[index], batch.pos[index], batch.logits[index] = token, place, wanted
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        batch.n_tokens = len(entries)
        if code := self.llama.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode says {code}")
        count = sum(wanted for *_, wanted in entries)
        if not count:
            return np.zeros((0, self.vocab_size), np.float32)
        scores = self.llama.llama_get_logits(self.context)
        return np.ctypeslib.as_array(scores, shape=(count, self.vocab_size))

    def _draw(self, scores: np.ndarray, temperature: float) -> np.ndarray:
        """One token per row."""
        if not temperature:
            return scores.argmax(axis=1)
        sums = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature).cumsum(axis=1)
        wanted = self.random.random(len(sums)) * sums[:, -1]
        return np.array([np.searchsorted(row, value) for row, value in zip(sums, wanted, strict=True)])

    def _make_context(self, sequences: int, length: int) -> None:
        """A context for so many sequences, each with a cache of its own for `length` tokens."""
        if self.made_for == (sequences, length):
            return
        llama = self.llama
        if self.context:
            llama.llama_free(self.context)
        settings = llama.llama_context_default_params()
        settings.n_seq_max, settings.n_ctx = sequences, sequences * (-(-length // 256) * 256)
        settings.n_batch, settings.kv_unified = BATCH_TOKENS, False
        settings.n_threads = settings.n_threads_batch = THREADS
        self.context, self.made_for = llama.llama_init_from_model(self.model, settings), (sequences, length)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context of {sequences} sequences of {length} tokens")


if __name__ == "__main__":
    serve(LlamaCpp(Path(sys.argv[1])))
