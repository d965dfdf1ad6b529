"""The page's own routes: ask, watch, leave and come back, stop, go on, branch; files; what is told of a history."""

import json
import time
from hashlib import sha256

import httpx
import pytest

from clearseek.config.server import Server
from clearseek.serve.keys import Key, Keys
from clearseek.serve.registry import Registry
from tests.serve.live import live, tiny_served
from tests.serve.scripted import scripted_model as make_scripted

OCTETS = {"Content-Type": "application/octet-stream"}
TEXT = "12 + 5 = 17 이므로</think>**17**입니다. " + "정확합니다. " * 8


@pytest.fixture
def slow(tokenizer):
    """A model that takes its time."""
    return make_scripted(tokenizer, TEXT, seconds=0.004)


@pytest.fixture
def client(slow, tmp_path):
    with (
        live(Registry([slow]), Server(port=0, history=tmp_path / "kept")) as address,
        httpx.Client(base_url=address, timeout=20) as client,
    ):
        yield client


def two_keys():
    """The secrets are the names."""
    return Keys([Key(name, sha256(name.encode()).hexdigest()) for name in ("ann", "bo")])


def begun(client, text="12 + 5?", **asked):
    """A conversation, and an answer on its way."""
    one = client.post("/api/conversations", json={}).json()
    said = client.post(f"/api/conversations/{one['id']}/messages", json={"text": text}).json()
    answer = client.post(f"/api/conversations/{one['id']}/answers", json={"parent": said["id"], **asked})
    assert answer.status_code == 201, answer.text
    return one["id"], said, answer.json()


def watch(client, message, after=0):
    """Events of an answer as far as they come."""
    with client.stream("GET", f"/api/answers/{message}/events", params={"after": after}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def opened(client, conversation):
    return client.get(f"/api/conversations/{conversation}").json()


def test_an_answer_comes_in_its_parts(client):
    conversation, _, answer = begun(client)
    *pieces, end = watch(client, answer["id"])
    thought, text = TEXT.split("</think>")
    assert "".join(piece["thought"] for piece in pieces) == thought
    assert "".join(piece["answer"] for piece in pieces) == text
    assert end["end"]["text"] == text
    assert end["end"]["state"] == "done"
    assert end["end"]["usage"]["completion_tokens"] == pieces[-1]["tokens"]
    assert 0 < end["end"]["usage"]["thought_tokens"] < pieces[-1]["tokens"]
    kept = opened(client, conversation)
    assert [m["text"] for m in kept["messages"]] == ["12 + 5?", text]
    assert kept["title"] == "12 + 5?"
    assert kept["leaf"] == answer["id"]


def test_who_comes_back_has_missed_nothing(client):
    conversation, _, answer = begun(client)
    for number, _ in enumerate(watch(client, answer["id"])):
        if number == 5:
            break
    now = opened(client, conversation)["messages"][-1]
    assert now["state"] == "writing"
    rest = list(watch(client, answer["id"], now["tokens"]))
    assert now["text"] + "".join(piece["answer"] for piece in rest[:-1]) == TEXT.split("</think>")[1]
    assert now["thought"] + "".join(piece["thought"] for piece in rest[:-1]) == TEXT.split("</think>")[0]


def test_stopping_is_explicit_and_going_on_goes_on(client, slow):
    conversation, _, answer = begun(client)
    events = watch(client, answer["id"])
    while not next(events)["answer"]:
        pass
    client.post(f"/api/answers/{answer['id']}/stop")
    end = list(events)[-1]["end"]
    assert end["state"] == "stopped"
    assert TEXT.split("</think>")[1].startswith(end["text"])
    again = client.post(f"/api/conversations/{conversation}/answers", json={"message": answer["id"]}).json()
    assert again["id"] == answer["id"]
    assert again["text"].startswith(end["text"])
    prompt = slow.tokenizer.decode(list(slow.service.asked[-1].prompt))
    assert prompt.endswith(f"{end['thought']}</think>{end['text']}")
    whole = list(watch(client, answer["id"]))[-1]["end"]
    assert whole["state"] == "done"
    assert whole["usage"]["completion_tokens"] > end["usage"]["completion_tokens"]
    read_and_written = len(slow.service.asked[-1].prompt) + len(slow.tokenizer.encode(TEXT)) + 1
    assert (
        whole["usage"]["prompt_tokens"] == end["usage"]["prompt_tokens"] == len(slow.service.asked[0].prompt)
    )
    assert whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"] == read_and_written


def test_a_draft_is_counted_as_the_model_would_read_it(client, slow):
    file = {"name": "a.txt", "pages": [{"number": 1, "text": "가나다"}]}
    told = client.post("/api/count", json={"model": slow.name, "text": "12 + 5?", "files": [file]})
    read = "[file name]: a.txt\n[file content begin]\n[page 1]\n가나다\n[file content end]\n12 + 5?"
    assert told.json() == {"tokens": len(slow.tokenizer.encode_plain(read))}
    assert client.post("/api/count", json={"model": "none", "text": "x"}).json() == {"tokens": None}


def test_a_thought_that_was_cut_off_goes_on_as_a_thought(client, slow):
    conversation, _, answer = begun(client, settings={"max_tokens": 3})
    end = list(watch(client, answer["id"]))[-1]["end"]
    assert (end["state"], end["text"]) == ("truncated", "")
    client.post(f"/api/conversations/{conversation}/answers", json={"message": answer["id"]})
    assert slow.tokenizer.decode(list(slow.service.asked[-1].prompt)).endswith(
        f"<think>\n{end['thought']}"
    ) or (slow.tokenizer.decode(list(slow.service.asked[-1].prompt)).endswith(f"<think>{end['thought']}"))
    whole = list(watch(client, answer["id"]))[-1]["end"]
    assert whole["thought"].startswith(end["thought"])
    assert whole["text"] == TEXT.split("</think>")[1]


def test_branches_and_what_the_model_reads_of_them(client, slow):
    conversation, said, answer = begun(client, settings={"system": "Be brief."})
    list(watch(client, answer["id"]))
    other = client.post(f"/api/conversations/{conversation}/messages", json={"text": "둘?"}).json()
    client.post(f"/api/conversations/{conversation}/answers", json={"parent": other["id"]})
    prompt = slow.tokenizer.decode(list(slow.service.asked[-1].prompt))
    assert "둘?" in prompt
    assert "12 + 5?" not in prompt
    refused = client.post(
        f"/api/conversations/{conversation}/messages", json={"text": "x", "parent": said["id"]}
    )
    assert refused.status_code == 400
    assert "follows an answer" in refused.json()["error"]["message"]
    after = client.post(
        f"/api/conversations/{conversation}/messages", json={"text": "셋?", "parent": answer["id"]}
    )
    client.post(f"/api/conversations/{conversation}/answers", json={"parent": after.json()["id"]})
    prompt = slow.tokenizer.decode(list(slow.service.asked[-1].prompt))
    assert "12 + 5?" in prompt
    assert "**17**입니다." in prompt
    assert "이므로" not in prompt, "earlier thoughts are not read again"


def test_settings_reach_the_engine_and_wrong_ones_are_named(client, slow):
    _, _, answer = begun(
        client, settings={"temperature": 0.3, "top_k": 5, "thinking_token_budget": 7, "seed": 3}
    )
    sampling = slow.service.asked[-1].sampling
    assert (sampling.temperature, sampling.top_k, sampling.thinking_budget) == (0.3, 5, 7)
    list(watch(client, answer["id"]))
    conversation = client.post("/api/conversations", json={}).json()["id"]
    refused = client.post(
        f"/api/conversations/{conversation}/answers", json={"parent": "x", "settings": {"temprature": 1}}
    )
    assert refused.status_code == 400
    assert "temperature" in refused.json()["error"]["message"]
    refused = client.post(f"/api/conversations/{conversation}/answers", json={"parent": "x"})
    assert "follows a user's message" in refused.json()["error"]["message"]


def test_an_answer_whose_server_ended_is_interrupted(slow, tmp_path):
    settings = Server(port=0, history=tmp_path, drain_seconds=0)
    with live(Registry([slow]), settings) as address, httpx.Client(base_url=address) as client:
        client.put("/api/history", json={"keeps": True})
        conversation, _, _ = begun(client)
    with live(Registry([slow]), settings) as address, httpx.Client(base_url=address) as client:
        state = opened(client, conversation)["messages"][-1]["state"]
    assert state == "interrupted"


def test_a_deleted_conversation_stops_and_leaves_nothing(client):
    conversation, _, answer = begun(client)
    assert client.delete(f"/api/conversations/{conversation}").status_code == 200
    assert client.get(f"/api/conversations/{conversation}").status_code == 404
    deadline = time.monotonic() + 10
    while client.get(f"/api/answers/{answer['id']}/events").status_code != 404:
        assert time.monotonic() < deadline
    assert client.get("/api/conversations").json() == []


def test_a_real_model_answers(tokenizer):
    with (
        live(Registry([tiny_served(tokenizer)])) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        _, _, answer = begun(client, settings={"max_tokens": 12, "temperature": 0})
        end = list(watch(client, answer["id"]))[-1]["end"]
    assert end["usage"]["completion_tokens"] <= 12
    assert end["thought"] or end["text"]


def test_an_answer_on_its_way_is_kept_whole_when_its_conversation_is(client):
    conversation, _, answer = begun(client)
    refused = client.patch(f"/api/conversations/{conversation}", json={"keep": True})
    assert refused.status_code == 400
    assert "choose to keep them first" in refused.json()["error"]["message"]
    client.put("/api/history", json={"keeps": True})
    events = watch(client, answer["id"])
    next(events)
    assert client.patch(f"/api/conversations/{conversation}", json={"keep": True}).json()["kept"]
    list(events)
    whole = opened(client, conversation)
    assert whole["kept"]
    assert whole["messages"][-1]["text"] == TEXT.split("</think>")[1]
    assert client.patch(f"/api/conversations/{conversation}", json={"keep": False}).status_code == 400


def test_everyone_with_a_key_has_a_history_of_their_own(slow, tmp_path):
    ann, bo = ({"Authorization": f"Bearer {name}"} for name in ("ann", "bo"))
    with (
        live(Registry([slow]), Server(port=0, history=tmp_path), two_keys()) as address,
        httpx.Client(base_url=address) as client,
    ):
        assert client.get("/api/conversations").status_code == 401
        assert client.get("/").status_code in (200, 503)
        client.put("/api/history", json={"keeps": True}, headers=ann)
        one = client.post("/api/conversations", json={"title": "ann's"}, headers=ann).json()
        assert one["kept"]
        assert client.get("/api/conversations", headers=bo).json() == []
        assert client.get(f"/api/conversations/{one['id']}", headers=bo).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/history/lock"),
        ("DELETE", "/api/history"),
        ("DELETE", "/api/conversations/CONVERSATION"),
    ],
)
def test_nobody_stops_another_one_s_answers(slow, tmp_path, method, path):
    ann, bo = (
        httpx.Client(headers={"Authorization": f"Bearer {name}"}, timeout=20) for name in ("ann", "bo")
    )
    with ann, bo, live(Registry([slow]), Server(port=0, history=tmp_path), two_keys()) as address:
        ann.base_url = bo.base_url = address
        (conversation, _, hers), (_, _, his) = begun(ann), begun(bo)
        answer = bo.request(method, path.replace("CONVERSATION", conversation))
        assert answer.status_code == (404 if "CONVERSATION" in path else 200)
        assert list(watch(ann, hers["id"]))[-1]["end"]["state"] == "done"
        left = bo.get(f"/api/answers/{his['id']}/events").status_code
        assert left == (200 if "CONVERSATION" in path else 404), "his own are stopped where he asks for it"


def test_nothing_of_the_page_is_for_a_browser_to_keep(client):
    conversation, _, answer = begun(client)
    for path in (
        "/api/conversations",
        f"/api/conversations/{conversation}",
        "/api/search?text=12",
        "/api/export",
    ):
        assert client.get(path).headers["cache-control"] == "no-store", path
    with client.stream("GET", f"/api/answers/{answer['id']}/events") as stream:
        assert stream.headers["cache-control"] == "no-store"


def test_export_and_import_over_http(client):
    conversation, _, answer = begun(client)
    list(watch(client, answer["id"]))
    for form in ("json", "jsonl", "md"):
        text = client.get("/api/export", params={"form": form, "id": conversation}).content
        told = client.post("/api/import", content=text, headers=OCTETS)
        assert told.status_code == 201, told.text
        again = opened(client, told.json()[0]["id"])
        assert [m["text"].strip() for m in again["messages"]] == [
            "12 + 5?",
            TEXT.split("</think>")[1].strip(),
        ]
        assert again["messages"][-1]["thought"].strip() == "12 + 5 = 17 이므로"
    refused = client.post("/api/import", content=b"\xff\xfe", headers=OCTETS)
    assert refused.status_code == 400
    assert len(client.get("/api/search", params={"text": "정확"}).json()) == 4


def test_what_was_exported_comes_back_however_large_it_is(client):
    said = {"id": "1", "role": "user", "text": "[x] " * 4_500_000}  # more than any other body may have
    text = json.dumps({"clearseek": 1, "conversations": [{"title": "long", "leaf": "1", "messages": [said]}]})
    told = client.post("/api/import", content=text, headers={"Content-Type": "application/json"}, timeout=60)
    assert told.status_code == 201, told.text
    assert opened(client, told.json()[0]["id"])["messages"][0]["text"] == said["text"]
    assert (
        client.post("/api/files", params={"name": "long.txt"}, content=text, headers=OCTETS).status_code
        == 413
    )


def test_an_answer_cut_in_its_thought_can_be_had_now(client, slow):
    conversation, _, answer = begun(client, settings={"max_tokens": 3})
    *_, end = watch(client, answer["id"])
    assert (end["end"]["state"], end["end"]["text"]) == ("truncated", "")
    slow.service.text = "그래서 17."
    asked = {"message": answer["id"], "answers_now": True}
    assert client.post(f"/api/conversations/{conversation}/answers", json=asked).status_code == 201
    *_, end = watch(client, answer["id"])
    assert (end["end"]["thought"], end["end"]["text"]) == (TEXT[: len(end["end"]["thought"])], "그래서 17.")
    prompt = slow.tokenizer.decode(list(slow.service.asked[-1].prompt))
    assert prompt.endswith("</think>")


def test_a_limit_larger_than_the_room_is_as_much_as_there_is(client, slow):
    _, _, answer = begun(client, settings={"max_tokens": slow.context})
    *_, end = watch(client, answer["id"])
    assert end["end"]["state"] == "done"


def test_a_full_context_has_a_code_and_numbers(client, slow):
    one = client.post("/api/conversations", json={}).json()
    said = client.post(f"/api/conversations/{one['id']}/messages", json={"text": "가나다 " * 3000}).json()
    answer = client.post(f"/api/conversations/{one['id']}/answers", json={"parent": said["id"]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["values"]["n"] > error["values"]["count"] == slow.context
    body = {"messages": [{"role": "user", "content": "가나다 " * 3000}]}
    error = client.post("/v1/chat/completions", json=body).json()["error"]
    assert error["code"] == "context_length_exceeded"  # as OpenAI has it
    assert "values" not in error
