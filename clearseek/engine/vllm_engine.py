"""A vLLM server as a sampler: token ids in and out, weights through a directory, log-probabilities as drawn.

The server takes over weights by loading them again in place (`/collective_rpc`, of vLLM's development mode), which
its builds for CPUs and GPUs do alike. Left out on purpose: 0.32's own weight transfer (`/update_weights` and what
belongs to it), all of whose ways move a GPU's memory, so that nothing of it runs on a CPU; and starting the server.

Its samples are not a function of their address alone, as ours are: seeds are, but scores depend on the batch. What
it answered is therefore written down; see `answered`.
"""

import os
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch

from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError, RunError
from clearseek.engine.answered import Answered, AnsweredBy
from clearseek.engine.request import Completion, Request, Sampling
from clearseek.engine.vllm_answer import completions_of, prompt_log_probs, question
from clearseek.engine.vllm_server import Lost, Refused, VllmServer
from clearseek.ledger.lines import file_sha256
from clearseek.model.checkpoint import save_state, write_directory
from clearseek.model.decoder import Decoder
from clearseek.model.log_probs import target_log_probs
from clearseek.text.tokenizer import Tokenizer

_CONTROL_SECONDS = 60.0  # for an answer that computes nothing
_LONGEST_PAUSE_SECONDS = 15.0  # between two looks whether the server is back
_MOST_PUTS = 3  # of the same weights for the sake of one batch of requests
_LOADING = "loading"  # the version of weights that may be half there
# what is scored by both sides, and how far they may be apart on average: rounding, not another model
_PROBE = "What is 17 + 25? 十七加二十五等于多少？ 17 더하기 25는 얼마인가요?"
_PROBE_TOKENS = 64
_PROBE_BOUND = {torch.float32: 0.01, torch.bfloat16: 0.3}

T = TypeVar("T")
First = Callable[[str, Callable[[], str]], str]


def alone(what: str, do: Callable[[], str]) -> str:
    """What the first of many processes would do for all, where there is only one."""
    return do()


class VllmEngine:
    """Puts a model's weights into a vLLM server and samples from it.

    `folder` holds the weights on their way and what was answered. `first` runs something on the first of the
    processes that sample together and gives all what it returned; `rank` is this one's number.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        dtype: torch.dtype,
        settings: Vllm,
        folder: Path,
        note: Callable[[str], None],
        first: First = alone,
        rank: int = 0,
        needed_since: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Wait for the server, look whether it serves such a model as is wanted, and put the weights there.

        `needed_since` tells from which time on answers may be asked for again. Raises InputError where the server
        was started otherwise, RunError where it does not come.
        """
        self.server = VllmServer(settings.url, os.environ.get("VLLM_API_KEY") or None)
        self.tokenizer, self.dtype, self.settings = tokenizer, dtype, settings
        self.stop_ids = frozenset(tokenizer.stop_ids)
        self.directory = Path(settings.directory or folder / "weights").resolve()
        self.answered = Answered(folder / "answered", rank)
        self.weights_version = -1
        self._note, self._first, self._needed_since = note, first, needed_since
        self._putting, self._num_puts = threading.Lock(), 0
        self._max_tokens = 0
        self.load_weights(model)

    def load_weights(self, model: Decoder) -> None:
        """As our engine: completions from now on are of these weights, and carry the next version number."""
        self._weights = self._first(f"vLLM at {self.server.url}", lambda: self._hand_over(model))
        self._max_tokens = self._max_tokens or self._longest()
        self.weights_version += 1
        self.answered.forget_before(self._needed_since())

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The samples of every request; of those that were answered before the kill of a run, the same.

        Raises InputError for a request that can't be put to the server, RunError where it fails.
        """
        for request in requests:
            self._check(request)
        with self.answered.open(self._weights) as known:
            self._answer_missing(requests, known)
            found = [known[request] for request in requests]
        return [[replace(one, weights_version=self.weights_version) for one in group] for group in found]

    def _answer_missing(self, requests: Sequence[Request], known: AnsweredBy) -> None:
        missing = [request for request in requests if request not in known]
        if not missing:
            return
        for _ in range(_MOST_PUTS):
            self._restore()
            before = self._num_puts
            answers = self._answer_all(missing)
            self._restore()
            if self._num_puts == before:
                known.add(missing, answers)
                return
        raise RunError(
            f"vLLM at {self.server.url} lost the weights {_MOST_PUTS} times while it sampled: another run puts its "
            "own there, or it keeps restarting; give every run a server of its own"
        )

    def _answer_all(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Whatever ends this, an interrupt too, ends the waiting for every answer."""
        self.server.stopped.clear()
        with ThreadPoolExecutor(min(self.settings.requests_at_once, len(requests))) as pool:
            try:
                return list(pool.map(self._answer, requests))
            except BaseException:
                self.server.stopped.set()
                raise

    # Weights

    def _hand_over(self, model: Decoder) -> str:
        """Write the weights and put them into the server, on one process for all; returns their hash."""
        with write_directory(self.directory) as partial:
            self._write(model, partial)
        self._weights = sha256(
            "".join(file_sha256(path) for path in sorted(self.directory.glob("model*.safetensors"))).encode()
        ).hexdigest()
        self._wait()
        if self.weights_version < 0:
            self._check_server()
        self._restore()
        if self.weights_version < 0:
            self._check_scores(model)
        return self._weights

    def _write(self, model: Decoder, directory: Path) -> None:
        """The model as the server reads it, with a head of its own.

        Given new weights, vLLM 0.32 keeps the old head of a model whose head is its embedding (seen on CPUs).
        """
        config = model.config.model_copy(update={"tie_word_embeddings": False})
        state = model.state_dict()
        if model.config.tie_word_embeddings:
            state["head.weight"] = model.head_weight.detach().clone()
        tokenizer = self.tokenizer
        ids = {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
        save_state(config, state, directory, token_ids=ids, dtype=self.dtype)
        tokenizer.save(directory)

    def _restore(self) -> None:
        """Put the weights into the server unless it has them, such as after a restart."""
        with self._putting:
            self._patiently(self._put_unless_there)

    def _put_unless_there(self) -> None:
        if self._control("/weight_info")["weight_version"] == self._weights:
            return
        self._control("/pause?mode=abort", {})
        try:
            self._control("/update_weight_version", {"new_version": _LOADING})
            where = {"method": "reload_weights", "kwargs": {"weights_path": str(self.directory)}}
            self._reload(where)
            if not self._control("/reset_prefix_cache", {})["success"]:
                raise RunError(
                    f"vLLM at {self.server.url} still holds its cache of other weights; restart it"
                )
            self._control("/update_weight_version", {"new_version": self._weights})
        finally:
            self._control("/resume", {})
        self._num_puts += 1

    def _reload(self, where: dict[str, Any]) -> None:
        try:
            self.server.ask("/collective_rpc", self.settings.start_timeout_seconds, where)
        except Refused as error:
            raise Refused(
                f"{error}; if it was started with a model of another shape, start it with: {self._command()}",
                error.status,
            ) from error

    # The server

    def _control(self, path: str, body: Any = None) -> Any:
        return self.server.ask(path, _CONTROL_SECONDS, body)

    def _wait(self) -> None:
        """Until the server is there; says how to start it where it isn't yet."""
        try:
            self._control("/health")
        except Lost:
            self._note(f"waiting for vLLM at {self.server.url}; start it with: {self._command()}")
            self._patiently(lambda: self._control("/health"))

    def _patiently(self, do: Callable[[], T]) -> T:
        """What `do` returns, once the server is there for it: asked again after ever longer pauses, for a while."""
        begun, longest = time.monotonic(), self.settings.start_timeout_seconds
        while True:
            try:
                return do()
            except Lost as error:
                waited = time.monotonic() - begun
                if waited >= longest:
                    raise RunError(
                        f"no vLLM at {self.server.url} within {longest:g} s ({error}); start it with: "
                        f"{self._command()}; then run the same command again"
                    ) from error
                time.sleep(min(_LONGEST_PAUSE_SECONDS, max(waited, 0.1), longest - waited))

    def _command(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        parts = urlsplit(self.server.url)
        where = f"--host {parts.hostname} --port {parts.port or (443 if parts.scheme == 'https' else 80)}"
        return (
            f"VLLM_SERVER_DEV_MODE=1 vllm serve {shlex.quote(str(self.directory))} {where} --dtype {dtype} "
            "--logprobs-mode processed_logprobs"
        )

    def _check_server(self) -> None:
        """InputError where the server was started in a way that would sample something else."""
        found = self._patiently(self._described)
        if found.get("logprobs_mode") != "processed_logprobs":
            raise InputError(
                f"vLLM at {self.server.url} reports log-probabilities as {found.get('logprobs_mode')}, not as it "
                f"samples them; start it with: {self._command()}"
            )
        if found.get("dtype") != str(self.dtype):
            raise InputError(
                f"vLLM at {self.server.url} computes in {found.get('dtype')}, this run in {self.dtype}; start it "
                f"with: {self._command()}"
            )

    def _check_scores(self, model: Decoder) -> None:
        """Law 1, roughly: InputError where the server makes something else of the same weights."""
        tokens = self.tokenizer.encode_chat([{"role": "user", "content": _PROBE}])[:_PROBE_TOKENS]
        asked = question(Request(tuple(tokens), 0, 1, Sampling(max_tokens=1)), self.stop_ids)
        body, longest = asked | {"prompt_logprobs": 0}, self.settings.answer_timeout_seconds
        answer = self._patiently(lambda: self.server.ask("/v1/completions", longest, body))
        theirs, ours = prompt_log_probs(answer, tokens), _log_probs(model, tokens, self.dtype)
        difference = sum(abs(a - b) for a, b in zip(theirs, ours, strict=True)) / len(ours)
        if difference > _PROBE_BOUND[self.dtype]:
            raise InputError(
                f"vLLM at {self.server.url} makes something else of this stage's weights: its log-probabilities "
                f"differ by {difference:.2f} on average. It was started with another model, or its build can't take "
                "over weights of this kind while it runs, as 0.32's for CPUs can't those of experts; start it with: "
                f"{self._command()}"
            )

    def _described(self) -> dict[str, Any]:
        """What the server says of its model."""
        try:
            return self._control("/server_info?config_format=json")["vllm_config"]["model_config"]
        except Refused as error:
            if error.status != 404:
                raise
            raise InputError(
                f"vLLM at {self.server.url} takes no weights: it was started without its development mode; start it "
                f"with: {self._command()}"
            ) from None
        except (KeyError, TypeError):
            raise RunError(
                f"vLLM at {self.server.url} does not say what it serves as version 0.32 does; update it"
            ) from None

    def _longest(self) -> int:
        """Tokens that a prompt and its completion may have together."""
        try:
            return int(self._patiently(lambda: self._control("/v1/models"))["data"][0]["max_model_len"])
        except (KeyError, TypeError, IndexError):
            raise RunError(f"vLLM at {self.server.url} does not say how long a text may be") from None

    # Requests

    def _check(self, request: Request) -> None:
        sampling = request.sampling
        if sampling != Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens) or request.best_of:
            raise InputError("vLLM is asked with temperature, top_p and max_tokens alone")
        if len(request.prompt) + sampling.max_tokens > self._max_tokens:
            raise InputError(
                f"prompt ({len(request.prompt)} tokens) and max_tokens ({sampling.max_tokens}) exceed the "
                f"{self._max_tokens} tokens that vLLM at {self.server.url} was started for (--max-model-len)"
            )

    def _answer(self, request: Request) -> list[Completion]:
        """Ask for one request's samples, again where the server went away meanwhile."""
        for _ in range(_MOST_PUTS):
            try:
                answer = self.server.ask(
                    "/v1/completions", self.settings.answer_timeout_seconds, question(request, self.stop_ids)
                )
                return completions_of(answer, request, self.stop_ids)
            except Lost:
                self._restore()
        raise RunError(f"vLLM at {self.server.url} went away {_MOST_PUTS} times while it was asked the same")


@torch.no_grad()
def _log_probs(model: Decoder, tokens: Sequence[int], dtype: torch.dtype) -> list[float]:
    """Of every token but the first."""
    row = torch.tensor([tokens], device=model.embedding.weight.device)
    states = model(row[:, :-1], torch.ones_like(row[:, :-1]), dtype, 0).states
    return target_log_probs(states[0], model.head_weight, row[0, 1:]).tolist()
