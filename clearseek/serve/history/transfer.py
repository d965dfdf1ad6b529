"""Conversations as files: Markdown for people, JSON with every branch, JSON lines that `sft` stages learn from."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from clearseek.serve.errors import KnownMistake
from clearseek.serve.history.prompts import as_chat, read_text
from clearseek.serve.history.records import Conversation, Message, Role, new_id, path_to
from clearseek.serve.wire import Wire

Form = Literal["md", "json", "jsonl"]
Tree = tuple[Conversation, Sequence[Message]]
MEDIA_TYPES = {"md": "text/markdown", "json": "application/json", "jsonl": "application/jsonl"}
_MARK = re.compile(r"^<!-- clearseek: (title|user|thought|assistant) -->$", re.MULTILINE)
_ESCAPED = re.compile(r"^(\\*)(?=<!-- clearseek: (?:title|user|thought|assistant) -->$)", re.MULTILINE)
_UNESCAPED = re.compile(r"^(\\*)\\(?=<!-- clearseek: (?:title|user|thought|assistant) -->$)", re.MULTILINE)
_HEADINGS = {"user": "## User", "thought": "### Thought", "assistant": "## Assistant"}


class _File(Wire):
    name: str
    pages: list[dict[str, Any]]


class _Message(Wire):
    id: str
    parent: str | None = None
    role: Role
    text: str
    thought: str = ""
    created: float = 0.0
    files: list[_File] = Field(default_factory=list)
    model: str = ""
    state: Literal["writing", "done", "truncated", "stopped", "interrupted", "failed"] = "done"
    pair: str = ""
    usage: dict[str, Any] = Field(default_factory=dict)
    error: str = ""


class _Conversation(Wire):
    title: str = ""
    created: float = 0.0
    updated: float = 0.0
    leaf: str | None = None
    folder: str = ""
    pinned: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)
    messages: list[_Message]


class _Exported(Wire):
    clearseek: Literal[1]
    conversations: list[_Conversation]


def write(trees: Iterable[Tree], form: Form) -> str:
    """Conversations as one text. Markdown and JSON lines have the branch that is shown, JSON has all."""
    if form == "md":
        return "\n".join(_markdown(*tree) for tree in trees)
    if form == "jsonl":
        return "".join(line for tree in trees for line in _examples(*tree))
    conversations = [_plain(*tree) for tree in trees]
    return json.dumps({"clearseek": 1, "conversations": conversations}, ensure_ascii=False, indent=1) + "\n"


def read(text: str) -> list[tuple[Conversation, list[Message]]]:
    """What `write` wrote, in whichever form; ids are new. `KnownMistake` for anything else."""
    if text.lstrip().startswith("{"):
        try:
            first = json.loads(text.lstrip().split("\n", 1)[0])
        except ValueError:
            first = {}
        return list(_from_lines(text)) if "messages" in first else _from_json(text)
    if _MARK.search(text):
        return list(_from_markdown(text))
    raise unknown()


def unknown() -> KnownMistake:
    """For a file that is none of ours."""
    return KnownMistake(
        "import_unknown",
        "the file holds no conversations: JSON, JSON lines with messages and Markdown that clearseek wrote can be read",
    )


def _broken(why: str) -> KnownMistake:
    return KnownMistake("import_broken", f"the file can't be imported: {why}", why=why)


def _markdown(head: Conversation, messages: Sequence[Message]) -> str:
    parts = [f"<!-- clearseek: title -->\n# {head.title}"]
    for message in path_to(messages, head.leaf):
        said = [("thought", message.thought)] if message.thought else []
        for kind, text in [*said, (message.role, read_text(message))]:
            escaped = _ESCAPED.sub(r"\1\\", text.strip())  # a text about such a mark is none
            parts.append(f"<!-- clearseek: {kind} -->\n{_HEADINGS[kind]}\n\n{escaped}")
    return "\n\n".join(parts) + "\n"


def _examples(head: Conversation, messages: Sequence[Message]) -> Iterator[str]:
    """One for every whole answer: what came before it, and the answer with its thought."""
    path, system = path_to(messages, head.leaf), head.settings.get("system") or ""
    for place, message in enumerate(path):
        if message.role == "assistant" and message.state == "done" and message.text.strip():
            chat = as_chat(path[:place], system) + as_chat([message], "", with_thoughts=True)
            yield json.dumps({"messages": chat}, ensure_ascii=False) + "\n"


def _plain(head: Conversation, messages: Sequence[Message]) -> dict[str, Any]:
    plain = {"created": head.created, "updated": head.updated, **head.body}
    whole = [{"id": m.id, "parent": m.parent, "created": m.created, **m.body} for m in messages]
    return {**plain, "messages": whole}


def _from_json(text: str) -> list[tuple[Conversation, list[Message]]]:
    try:
        exported = _Exported.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] != "json_invalid" and len(first["loc"]) < 2:
            raise unknown() from None  # JSON of somebody else
        raise _broken(f"{place}: {first['msg']}" if place else first["msg"]) from None
    return [_with_new_ids(one) for one in exported.conversations]


def _with_new_ids(one: _Conversation) -> tuple[Conversation, list[Message]]:
    ids = {message.id: new_id() for message in one.messages}
    head = Conversation(**one.model_dump(exclude={"messages", "leaf"}), leaf=ids.get(one.leaf or ""))
    messages = []
    for message in one.messages:
        if message.parent is not None and message.parent not in ids:
            raise _broken(f"message {message.id!r} follows {message.parent!r}, which is not in the file")
        plain = message.model_dump(exclude={"id", "parent"})
        parent = None if message.parent is None else ids[message.parent]
        messages.append(Message(head.id, parent, id=ids[message.id], **plain))
    return head, messages


def _from_lines(text: str) -> Iterator[tuple[Conversation, list[Message]]]:
    before: list[tuple[str, str, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            turns = [
                (turn["role"], turn["content"], turn.get("reasoning_content", ""))
                for turn in json.loads(line)["messages"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _broken(f"line {number}: no object with messages that have role and content") from None
        if before and not _goes_on(before, turns):
            yield _branch("", before)
        elif before:  # a conversation has a line for each answer; thoughts stand only in their own
            turns[: len(before)] = before
        before = turns
    if not before:
        raise unknown()
    yield _branch("", before)


def _goes_on(before: list[tuple[str, str, str]], turns: list[tuple[str, str, str]]) -> bool:
    said = [turn[:2] for turn in before]
    return len(turns) > len(before) and [turn[:2] for turn in turns[: len(before)]] == said


def _from_markdown(text: str) -> Iterator[tuple[Conversation, list[Message]]]:
    parts = _MARK.split(text)[1:]
    title, turns, thought = "", list[tuple[str, str, str]](), ""
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if kind == "title":
            if turns:
                yield _branch(title, turns)
            title, turns = body.strip().removeprefix("# ").strip(), []
        elif kind == "thought":
            thought = _without_heading(body, kind)
        else:
            turns.append((kind, _without_heading(body, kind), thought))
            thought = ""
    yield _branch(title, turns)


def _without_heading(body: str, kind: str) -> str:
    return _UNESCAPED.sub(r"\1", body.strip().removeprefix(_HEADINGS[kind]).strip())


def _branch(title: str, turns: Sequence[tuple[str, str, str]]) -> tuple[Conversation, list[Message]]:
    """A conversation without branches."""
    head, now = Conversation(title=title), time.time()
    messages = list[Message]()
    for place, (role, text, thought) in enumerate(turns):
        if role == "system" and not messages:
            head.settings["system"] = text
            continue
        if role not in ("user", "assistant") or not isinstance(text, str) or not isinstance(thought, str):
            raise _broken(f"a message of the role {role!r} can't be read; there are user and assistant")
        parent = messages[-1].id if messages else None
        messages.append(Message(head.id, parent, role, text, created=now + place * 1e-6, thought=thought))  # type: ignore[arg-type]
    if not messages:
        raise _broken("a conversation in the file has no messages")
    head.leaf = messages[-1].id
    head.title = head.title or title_of(messages[0].text)
    return head, messages


def title_of(text: str) -> str:
    """A title for what was asked: its first line, not too long."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 60 else line[:59].rstrip() + "…"
