"""What the page's routes have in common."""

from typing import Any

from fastapi import Request

from clearseek.serve.history.history import History
from clearseek.serve.history.records import Conversation, Message
from clearseek.serve.state import state_of
from clearseek.serve.streaming import JsonResponse

_NOT_STORED = {"Cache-Control": "no-store"}  # a browser's cache is a disk, too


def history_of(request: Request) -> History:
    """The history of whoever asks."""
    return state_of(request).histories.of(request.state.client)


def reply(value: Any, status: int = 200) -> JsonResponse:
    """JSON that no browser keeps."""
    return JsonResponse(value, status, _NOT_STORED)


def told_conversation(one: Conversation, is_kept: bool) -> dict[str, Any]:
    """A conversation's head as the page has it."""
    return {"id": one.id, "created": one.created, "updated": one.updated, "kept": is_kept, **one.body}


def told_message(request: Request, one: Message) -> dict[str, Any]:
    """A message as the page has it; one that is being written as far as it is, with where to read on."""
    answer = state_of(request).answers.of(one.id)
    if answer is not None:
        one = answer.message
    told = {"id": one.id, "parent": one.parent, "created": one.created, **one.body}
    if answer is not None:
        told["tokens"] = answer.num_tokens
    elif one.state == "writing":
        told["state"] = "interrupted"  # the server that wrote it has ended
    return told
