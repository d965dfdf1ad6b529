"""Stand-ins for the rooms below the command line, so that its own work is tested alone."""

import sys
from types import ModuleType, SimpleNamespace

import pytest


class FakeSession:
    """Answers every prompt with the same pieces; stops with Ctrl-C where a piece says so."""

    def __init__(self, pieces=(("thought", "6*7"), ("thought", "=42"), ("answer", "\n\n42"))):
        self.pieces = pieces
        self.asked = []
        self.completion_tokens = len(pieces)
        self.finish_reason = "stop"
        self.prompt_tokens, self.seconds_to_first_token, self.tokens_per_second = 4, 0.25, 8.0
        self.engine = SimpleNamespace(why_plain=None, speculation=None)
        self.opened_with = None

    def opened(self, model, **named):
        self.opened_with = model, named
        return self

    def replies(self, messages, **settings):
        self.asked.append((messages, settings))
        completion = SimpleNamespace(tokens=[3, 4, 5], finish_reason="stop", stopped_by=None)
        records = [{"token": 5, "text": "42", "log_prob": -0.5}]
        reply = SimpleNamespace(thought="6*7=42", answer="42", completion=completion, records=records)
        return [reply] * settings["num_samples"]

    def stream(self, messages, **settings):
        self.asked.append((messages, settings))
        for kind, text in self.pieces:
            if text is KeyboardInterrupt:
                raise KeyboardInterrupt
            yield kind, text


def put_module(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    """Let `from NAME import MEMBER` find `members`, whether or not the real module is there."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
