"""A server that speaks as vLLM 0.32 does and answers with our own engine, in a thread of this process."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import torch

from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion, Request, Sampling
from clearseek.model.checkpoint import load_model
from clearseek.model.decoder import Decoder

LONGEST = 256


class VllmStandIn:
    """Serves `model` until it is told to load others; what is asked of it is in `asked`."""

    def __init__(self, model: Decoder, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model, dtype
        self.logprobs_mode, self.dev_mode, self.api_key = "processed_logprobs", True, None
        self.version, self.paused, self.warm = "default", False, False
        self.asked: list[tuple[str, Any]] = []
        self.drifts = False  # another answer to the same request every time, as batches of others would cause
        self.losses = 0  # answers that never arrive
        self.delay_seconds = 0.0
        self.change: Any = None  # applied to the answers
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def paths(self, path: str) -> list[Any]:
        """The bodies of everything that was asked at a path."""
        return [body for where, body in self.asked if where == path]

    @property
    def questions(self) -> list[Any]:
        """The bodies of everything that it was to complete for a stage."""
        return [body for body in self.paths("/v1/completions") if "prompt_logprobs" not in body]

    def restart(self, model: Decoder) -> None:
        """As a server that was ended and started again with the weights of its command line."""
        self.model, self.version, self.warm = model, "default", False

    # what is asked

    def answer(self, path: str, body: Any, key: str | None) -> tuple[int, Any]:
        """HTTP's status and what is answered."""
        place = urlsplit(path)
        self.asked.append((place.path, body))
        if place.path.startswith("/v1") and self.api_key is not None and key != f"Bearer {self.api_key}":
            return 401, {"error": "Unauthorized"}
        known = {
            "/health": lambda: b"",
            "/v1/models": lambda: {"data": [{"id": "served", "max_model_len": LONGEST}]},
            "/v1/completions": lambda: self._complete(body),
        }
        if self.dev_mode:
            known |= {
                "/server_info": self._describe,
                "/weight_info": lambda: {"weight_version": self.version},
                "/pause": lambda: self._pause(True),
                "/resume": lambda: self._pause(False),
                "/collective_rpc": lambda: self._reload(body),
                "/reset_prefix_cache": self._forget,
                "/update_weight_version": lambda: self._name(body["new_version"]),
            }
        if place.path not in known:
            return 404, {"detail": "Not Found"}
        with self._lock:
            found = known[place.path]()
        return found if isinstance(found, tuple) else (200, found)

    def _describe(self) -> Any:
        return {
            "vllm_config": {"model_config": {"dtype": str(self.dtype), "logprobs_mode": self.logprobs_mode}}
        }

    def _pause(self, paused: bool) -> Any:
        self.paused = paused
        return {"status": "paused" if paused else "resumed"}

    def _reload(self, body: Any) -> Any:
        assert body["method"] == "reload_weights"
        assert self.paused
        self.model = load_model(Path(body["kwargs"]["weights_path"]))
        return {"results": [None]}

    def _forget(self) -> Any:
        self.warm = False
        return {"success": True}

    def _name(self, version: str) -> Any:
        self.version = version
        return {"success": True, "new_version": version}

    def _complete(self, body: Any) -> Any:
        if self.paused:
            return 503, {"error": {"message": "paused"}}
        assert body["ignore_eos"] is True
        assert body["logprobs"] == 0
        assert body["return_token_ids"] is True
        if body["temperature"] == 0 and body["n"] > 1:
            return 400, {"error": {"message": f"n must be 1 when using greedy sampling, got {body['n']}."}}
        self.warm = True
        seed = body["seed"] + (time.monotonic_ns() if self.drifts else 0)
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"])
        request = Request(tuple(body["prompt"]), seed, body["n"], sampling)
        (completions,) = Engine(self.model, body["stop_token_ids"], self.dtype).generate([request])
        answer = {"choices": [_choice(i, one) for i, one in enumerate(completions)]}
        if "prompt_logprobs" in body:
            answer["choices"][0]["prompt_logprobs"] = self._score(body["prompt"])
        return self.change(answer) if self.change else answer

    @torch.no_grad()
    def _score(self, prompt: list[int]) -> list[Any]:
        tokens = torch.tensor([prompt])
        states = self.model(tokens, torch.ones_like(tokens), self.dtype, 0).states
        scores = torch.log_softmax(self.model.logits(states)[0].float(), -1)
        return [
            None,
            *({str(t): {"logprob": float(row[t])}} for row, t in zip(scores, prompt[1:], strict=False)),
        ]

    def _handler(stand_in: "VllmStandIn") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._respond(None)

            def do_POST(self) -> None:
                self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _respond(self, body: Any) -> None:
                if self.path == "/v1/completions":
                    time.sleep(stand_in.delay_seconds)
                    if stand_in.losses:
                        stand_in.losses -= 1
                        self.connection.close()
                        return
                status, found = stand_in.answer(self.path, body, self.headers["Authorization"])
                raw = found if isinstance(found, bytes) else json.dumps(found).encode()
                with suppress(OSError):  # who asked may have gone
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(raw)))
                    self.end_headers()
                    self.wfile.write(raw)

            def log_message(self, *unused: Any) -> None:
                pass

        return Handler


def _choice(index: int, one: Completion) -> dict[str, Any]:
    tokens = [f"token_id:{token}" for token in one.tokens]
    return {
        "index": index,
        "text": "",
        "finish_reason": one.finish_reason,
        "stop_reason": one.tokens[-1] if one.finish_reason == "stop" else None,
        "token_ids": one.tokens,
        "logprobs": {"tokens": tokens, "token_logprobs": one.log_probs},
    }
