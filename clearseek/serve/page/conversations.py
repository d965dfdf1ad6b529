"""`/api/conversations`: list, open, change, delete, search, export, import; and files that are dropped in."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, JsonValue
from starlette.responses import Response

from clearseek.config.errors import InputError
from clearseek.serve.history import transfer
from clearseek.serve.history.files import read_file
from clearseek.serve.history.history import History
from clearseek.serve.history.prompts import read_text
from clearseek.serve.history.records import Conversation, Message
from clearseek.serve.history.transfer import title_of
from clearseek.serve.page.access import history_of, reply, told_conversation, told_message
from clearseek.serve.state import state_of
from clearseek.serve.wire import Wire

router = APIRouter(prefix="/api")
IMPORT = "/api/import"


class Head(Wire):
    """A new conversation. `keep`: false for one that is not kept even where others are."""

    title: str = Field(default="", max_length=1000)
    folder: str = Field(default="", max_length=200)
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    keep: bool | None = None


class Change(Wire):
    """What is to be different in a conversation. `keep`: one that was not kept is from now on."""

    title: str | None = Field(default=None, max_length=1000)
    folder: str | None = Field(default=None, max_length=200)
    pinned: bool | None = None
    leaf: str | None = None
    settings: dict[str, JsonValue] | None = None
    keep: Literal[True] | None = None


class Page(Wire):
    """A page of a file."""

    number: int
    text: str


class File(Wire):
    """A file that was read."""

    name: str = Field(max_length=1000)
    pages: list[Page] = Field(min_length=1)


class Said(Wire):
    """A user's message; `parent` is what it follows."""

    text: str
    parent: str | None = None
    files: list[File] = Field(default_factory=list)


class Counted(Wire):
    """What may be said to a model next."""

    model: str = Field(max_length=1000)
    text: str = ""
    files: list[File] = Field(default_factory=list)


@router.get("/conversations")
def list_all(request: Request) -> Response:
    """All, the latest first."""
    return reply([told_conversation(one, kept) for one, kept in history_of(request).all()])


@router.post("/conversations")
def create(body: Head, request: Request) -> Response:
    """A new one."""
    history = history_of(request)
    one = Conversation(title=body.title, folder=body.folder, settings=body.settings)
    history.add(one, body.keep)
    return reply(told_conversation(one, history.is_kept(one.id)), 201)


@router.get("/search")
def search(request: Request, text: str = "") -> Response:
    """Conversations of which a title, message, thought or file holds all words of `text`."""
    found = history_of(request).find(text)
    return reply(
        [
            {
                **told_conversation(one.head, one.is_kept),
                "message": one.message,
                "where": one.where,
                "file": one.file,
                "excerpt": one.excerpt,
            }
            for one in found
        ]
    )


@router.get("/conversations/{id}")
def open_one(id: str, request: Request) -> Response:
    """One with all of its branches."""
    history = history_of(request)
    messages = [told_message(request, message) for message in history.messages(id)]
    return reply({**told_conversation(history.get(id), history.is_kept(id)), "messages": messages})


@router.patch("/conversations/{id}")
def change(id: str, body: Change, request: Request) -> Response:
    """Change a title, folder, pin, settings, the branch that is shown, or keep it."""
    history = history_of(request)
    if body.keep:
        history.keep(id)
    one = history.get(id)
    for name in ("title", "folder", "pinned", "settings"):
        if (value := getattr(body, name)) is not None:
            setattr(one, name, value)
    if body.leaf is not None:
        one.leaf = history.message(id, body.leaf).id
    history.change(one, touch=False)
    return reply(told_conversation(one, history.is_kept(id)))


@router.delete("/conversations/{id}")
async def delete(id: str, request: Request) -> Response:
    """Delete one for good."""
    history = history_of(request)
    state_of(request).answers.drop(history, id)
    await asyncio.to_thread(history.delete, id)
    return reply({"deleted": id})


@router.post("/conversations/{id}/messages")
def say(id: str, body: Said, request: Request) -> Response:
    """A user's message: the next one, or another one in place of one that was said before."""
    history = history_of(request)
    one = history.get(id)
    if body.parent is not None and history.message(id, body.parent).role != "assistant":
        raise InputError("a user's message follows an answer, or is the first")
    if not body.text.strip() and not body.files:
        raise InputError("there is nothing in the message")
    message = Message(id, body.parent, "user", body.text, files=[file.model_dump() for file in body.files])
    history.put(message)
    one.leaf = message.id
    one.title = one.title or title_of(body.text) or body.files[0].name
    history.change(one)
    return reply(told_message(request, message), 201)


@router.post("/count")
async def count(body: Counted, request: Request) -> Response:
    """How many tokens a draft is, as the model would read it; null where that is not open: no reason to open it."""
    opened = {model.name: model for model in state_of(request).registry.loaded()}
    if body.model not in opened:
        return reply({"tokens": None})
    model = opened[body.model]
    draft = Message("", None, "user", body.text, files=[file.model_dump() for file in body.files])
    tokens = await asyncio.to_thread(model.tokenizer.encode_plain, read_text(draft))
    return reply({"tokens": len(tokens)})


@router.post("/files")
async def read(request: Request, name: str) -> Response:
    """A file's text in pages; nothing of it is kept here."""
    content = await request.body()
    return reply(await asyncio.to_thread(read_file, name, content))


@router.get("/export")
def export(
    request: Request, form: Literal["md", "json", "jsonl"] = "json", id: str | None = None
) -> Response:
    """One conversation, or all, as a file."""
    history = history_of(request)
    heads = [history.get(id)] if id is not None else [one for one, _ in history.all()]
    text = transfer.write([(one, history.messages(one.id)) for one in heads], form)
    return Response(text, media_type=transfer.MEDIA_TYPES[form], headers={"Cache-Control": "no-store"})


@router.post(IMPORT.removeprefix(router.prefix))
async def take_in(request: Request) -> Response:
    """Conversations from a file that was exported, as new ones."""
    try:
        text = (await request.body()).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise transfer.unknown() from None
    return reply(await asyncio.to_thread(_take_in, history_of(request), text), 201)


def _take_in(history: History, text: str) -> list[dict[str, Any]]:
    told = []
    for head, messages in transfer.read(text):
        history.add(head)
        history.put_all(messages)
        told.append(told_conversation(head, history.is_kept(head.id)))
    return told
