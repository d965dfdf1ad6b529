"""One person's conversations: those that are kept in a file, where they want that, and those that are not.

What is not kept lives in memory as long as the server, so that reloading the page loses nothing; nothing of it is ever
written to disk.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.serve.errors import ApiError
from clearseek.serve.history.records import Conversation, Message, path_to
from clearseek.serve.history.store import Store
from clearseek.serve.history.words import Index

_MOST_FOUND = 50
_EXCERPT = 40  # characters before and after what was found


@dataclass(frozen=True)
class Found:
    """Where something was found. `where`: title, text, thought, or file, which then has a name; else that is empty."""

    head: Conversation
    is_kept: bool
    message: str  # empty: the conversation itself
    where: str
    file: str
    excerpt: str


class History:
    """Conversations by id, wherever they are. `path`: where those that are kept go; None: none can be."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._fleeting = Store()
        self._kept = Store(path) if path is not None and path.exists() else None
        self._lock = threading.RLock()
        self._index: Index | None = None  # made when somebody looks for something

    def close(self) -> None:
        """Give the file back; what was not kept is gone."""
        for store in filter(None, (self._fleeting, self._kept)):
            store.close()

    # Whether conversations are kept

    @property
    def keeps(self) -> bool:
        """Whether new conversations are kept."""
        return self._kept is not None and self._kept.keeps()

    @property
    def is_sealed(self) -> bool:
        """Whether those that are kept are encrypted."""
        return self._kept is not None and self._kept.is_sealed

    @property
    def is_locked(self) -> bool:
        """Whether those that are kept wait for their passphrase."""
        return self._kept is not None and self._kept.is_locked

    def set_keeps(self, keeps: bool) -> None:
        """From now on. What is kept already stays until it is deleted."""
        with self._lock:
            if keeps and self._kept is None:
                if self.path is None:
                    raise InputError("this server was started without a place for conversations")
                self._kept = Store(self.path)
            if self._kept is not None:
                self._kept.set_keeps(keeps)

    def set_passphrase(self, passphrase: str | None) -> None:
        """Encrypt what is kept with a new passphrase; None: no longer. InputError where nothing is kept."""
        if self._kept is None:
            raise InputError("no conversations are kept, so there is nothing to encrypt; keep them first")
        self._kept.set_passphrase(passphrase)

    def unlock(self, passphrase: str) -> None:
        """Open what is encrypted. InputError for another passphrase."""
        if self._kept is None:
            raise InputError("no conversations are kept, so none are locked")
        self._kept.unlock(passphrase)
        self._forget_index()

    def lock(self) -> None:
        """Forget the key."""
        if self._kept is not None:
            self._kept.lock()
            self._forget_index()

    def delete_all(self) -> None:
        """Delete every conversation, the file itself and its passphrase; nothing is kept from now on."""
        with self._lock:
            if self._kept is not None:
                if not self._kept.is_locked:
                    for one in self._kept.conversations():
                        self._kept.delete_conversation(one.id)
                self._kept.close()
                self._kept = None
                assert self.path is not None, "what is kept has a place"
                for path in (self.path, Path(f"{self.path}-journal")):
                    path.unlink(missing_ok=True)
            self._fleeting.close()
            self._fleeting = Store()
            self._forget_index()

    # Conversations

    def all(self) -> list[tuple[Conversation, bool]]:
        """All with whether they are kept, the latest first; of a locked history only those that are not."""
        found = [(one, False) for one in self._fleeting.conversations()]
        if self._kept is not None and not self._kept.is_locked:
            found += [(one, True) for one in self._kept.conversations()]
        return sorted(found, key=lambda pair: -pair[0].updated)

    def is_kept(self, id: str) -> bool:
        """Whether a conversation is in the file."""
        return self._kept is not None and self._kept.holds(id)

    def add(self, one: Conversation, keep: bool | None = None) -> Conversation:
        """A new conversation; `keep`: whether it goes into the file, None: as was chosen for all."""
        keep = self.keeps if keep is None else keep and self.keeps
        store = self._kept if keep and self._kept is not None else self._fleeting
        store.put_conversation(one)
        self._note(one)
        return one

    def keep(self, id: str) -> None:
        """From now on a conversation that was not kept is, with all of its messages. InputError where none are."""
        with self._lock:
            one, messages = self.get(id), self.messages(id)
            if self.is_kept(id):
                return
            if self._kept is None or not self._kept.keeps():
                raise InputError("conversations are not kept; choose to keep them first")
            self._kept.put_conversation(one)
            self._kept.put_messages(messages)
            self._fleeting.delete_conversation(id)

    def get(self, id: str) -> Conversation:
        """One by its id; `ApiError` 404 where there is none, 423 where it is locked."""
        found = self._store(id).conversation(id)
        assert found is not None, "its store holds it"
        return found

    def change(self, one: Conversation, touch: bool = True) -> None:
        """Write what has changed in it; `touch`: it is the latest now."""
        if touch:
            one.updated = time.time()
        with self._lock:  # it may be on its way to another store
            self._store(one.id).put_conversation(one)
        self._note(one)

    def delete(self, id: str) -> None:
        """Delete a conversation."""
        self._store(id).delete_conversation(id)
        if self._index is not None:
            self._index.remove(id)

    # Messages

    def messages(self, conversation: str) -> list[Message]:
        """All branches of a conversation, the oldest message first."""
        return self._store(conversation).messages(conversation)

    def message(self, conversation: str, id: str) -> Message:
        """One of them; `ApiError` 404 where there is none."""
        for one in self.messages(conversation):
            if one.id == id:
                return one
        raise ApiError(404, f"the conversation has no message {id!r}")

    def branch(self, conversation: str, leaf: str | None) -> list[Message]:
        """The branch that ends in `leaf`."""
        return path_to(self.messages(conversation), leaf)

    def put(self, message: Message, index: bool = True) -> None:
        """Write a message, new or changed. One that is still being written need not be found yet."""
        with self._lock:
            self._store(message.conversation).put_messages([message])
        if index:
            self._note(message)

    def put_all(self, messages: Sequence[Message]) -> None:
        """Write the messages of one conversation at once."""
        if messages:
            with self._lock:
                self._store(messages[0].conversation).put_messages(messages)
        for message in messages:
            self._note(message)

    # Search

    def find(self, text: str) -> list[Found]:
        """Conversations of which a title, text, thought or file holds all words of `text`, the best first."""
        index = self._made_index()
        found: dict[str, Found] = {}
        for conversation, message, part in index.find(text, _MOST_FOUND * 4):
            known = found.get(conversation)
            # a title gives way to a message: that is a place to go to
            if known.message or not message if known else len(found) >= _MOST_FOUND:
                continue
            head = self.get(conversation)
            parts = _parts(self.message(conversation, message)) if message else _parts(head)
            name = part.partition(":")[2]
            found[conversation] = Found(
                head,
                self.is_kept(conversation),
                message,
                part.partition(":")[0],
                name,
                excerpt(parts[part], text),
            )
        return list(found.values())

    def _made_index(self) -> Index:
        with self._lock:
            if self._index is None:
                self._index = Index()
                for one, _ in self.all():
                    self._note(one)
                    for message in self.messages(one.id):
                        self._note(message)
            return self._index

    def _note(self, one: Conversation | Message) -> None:
        with self._lock:
            if self._index is None:
                return
            place = (one.id, "") if isinstance(one, Conversation) else (one.conversation, one.id)
            self._index.put(*place, _parts(one))

    def _forget_index(self) -> None:
        with self._lock:
            self._index = None

    def _store(self, conversation: str) -> Store:
        for store in filter(None, (self._fleeting, self._kept)):
            if store.holds(conversation):
                return store
        raise ApiError(404, f"there is no conversation {conversation!r}", code="conversation_not_found")


def _parts(one: Conversation | Message) -> dict[str, str]:
    """What of it is looked for, each part for itself; a file's part has its name, which counts as its first line."""
    if isinstance(one, Conversation):
        return {"title": one.title}
    texts = [(file["name"], "\n".join(page["text"] for page in file["pages"])) for file in one.files]
    return {
        "text": one.text,
        "thought": one.thought,
        **{f"file:{name}": f"{name}\n{text}" for name, text in texts},
    }


def excerpt(text: str, wanted: str) -> str:
    """Some of `text` around the first word of `wanted` that it holds."""
    folded = text.casefold()
    places = [place for word in wanted.casefold().split() if (place := folded.find(word)) >= 0]
    start = max(min(places, default=0) - _EXCERPT, 0)
    end = start + 2 * _EXCERPT + len(wanted)
    piece = " ".join(text[start:end].split())
    return f"{'…' * (start > 0)}{piece}{'…' * (end < len(text))}"
