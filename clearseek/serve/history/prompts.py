"""What a model reads of a conversation: files in the form that DeepSeek published for R1, pages marked in them."""

from collections.abc import Sequence
from typing import Any

from clearseek.serve.history.records import Message


def read_text(message: Message) -> str:
    """A message as the model reads it: its files first, then what was typed."""
    return "".join(map(_file, message.files)) + message.text


def as_chat(path: Sequence[Message], system: str, with_thoughts: bool = False) -> list[dict[str, str]]:
    """A branch as roles and contents; thoughts only where asked, as R1's are not read again."""
    chat = [{"role": "system", "content": system}] if system.strip() else []
    for message in path:
        turn = {"role": message.role, "content": read_text(message)}
        if with_thoughts and message.thought:
            turn["reasoning_content"] = message.thought.strip()
        chat.append(turn)
    return chat


def _file(file: dict[str, Any]) -> str:
    text = "\n".join(f"[page {page['number']}]\n{page['text']}" for page in file["pages"])
    return f"[file name]: {file['name']}\n[file content begin]\n{text}\n[file content end]\n"
