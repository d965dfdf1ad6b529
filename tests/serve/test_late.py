"""A model that takes its time to open: signs of life meanwhile, and its failure told in each API's form."""

import json
import threading
import time

import httpx
import pytest
from playwright.sync_api import expect

from clearseek.config.errors import InputError
from clearseek.config.server import Server
from clearseek.serve.registry import Registry, Source
from tests.serve.live import live, tiny_served, wait_for
from tests.serve.page import Visit, needs_browser, talking
from tests.serve.scripted import scripted_model

SETTINGS = Server(port=0, keep_alive_seconds=0.05)
QUESTION = [{"role": "user", "content": "12 + 5?"}]
BODIES = {
    "/v1/chat/completions": {"messages": QUESTION},
    "/chat/completions": {"messages": QUESTION},
    "/v1/completions": {"prompt": "12"},
    "/v1/messages": {"model": "tiny", "messages": QUESTION, "max_tokens": 50},
    "/v1/responses": {"input": "12 + 5?"},
}


class Opening:
    """A server whose model opens once `go` is set, or fails where `error` is."""

    def __init__(self, model, error=None):
        self.model, self.error, self.go = model, error, threading.Event()
        self.registry = Registry(sources=[Source("tiny", self._open, 1)])

    def wait(self):
        """Until it is open, and whoever wanted it has had the time to ask."""
        wait_for(self.registry.loaded, "it is not open")
        time.sleep(0.1)

    def _open(self):
        assert self.go.wait(30)
        if self.error is not None:
            raise self.error
        return self.model


@pytest.fixture
def opening(tokenizer):
    return Opening(scripted_model(tokenizer, "12 + 5 = 17</think>17.", tokens_at_once=1000))


def lines(address, path, go, **settings):
    """Those of a stream; `go` is set once there were signs of life."""
    body = BODIES[path] | {"stream": True} | settings
    with httpx.stream("POST", f"{address}{path}", json=body, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        said = []
        for line in filter(None, answer.iter_lines()):
            said.append(line)
            if said.count(": keep-alive") == 3:
                go.set()
        return said


@pytest.mark.parametrize("path", BODIES)
def test_a_stream_lives_while_its_model_opens(opening, path):
    with live(opening.registry, SETTINGS) as address:
        said = lines(address, path, opening.go)
        assert said[:3] == [": keep-alive"] * 3
        again = lines(address, path, opening.go)  # now it is open
    kinds = [line.split(":")[0] for line in said if not line.startswith(":")]
    assert kinds == [line.split(":")[0] for line in again]
    assert "17" in "".join(said)


@pytest.mark.parametrize("path", [*BODIES, "/v1/embeddings"])
def test_a_whole_answer_begins_with_blank_lines_while_its_model_opens(tokenizer, path):
    opening = Opening(tiny_served(tokenizer))
    body = BODIES.get(path, {"input": "12"})
    with (
        live(opening.registry, SETTINGS) as address,
        httpx.stream("POST", f"{address}{path}", json=body, timeout=30) as answer,
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        raw = answer.iter_raw()
        assert next(raw) == b"\n"
        opening.go.set()
        assert json.loads(b"".join(raw))["object" if "messages" not in path else "type"]


@pytest.mark.parametrize("path", BODIES)
def test_a_model_that_can_not_be_opened_ends_the_stream_in_its_form(opening, path):
    opening.error = InputError("its weights are not whole")
    with live(opening.registry, SETTINGS) as address:
        said = lines(address, path, opening.go)
        last = json.loads(said[-1].removeprefix("data: "))
        why = "tiny can't be opened: its weights are not whole"
        if path == "/v1/messages":
            assert (said[-2], last) == (
                "event: error",
                {"type": "error", "error": {"type": "overloaded_error", "message": why}},
            )
        elif path == "/v1/responses":
            assert said[-2] == "event: error"
            assert last == {
                "type": "error", "code": "model_not_opened", "message": why, "param": None, "sequence_number": 0,
            }  # fmt: skip
        else:
            assert last == {
                "error": {
                    "message": why,
                    "type": "service_unavailable",
                    "param": None,
                    "code": "model_not_opened",
                }
            }
        whole = httpx.post(f"{address}{path}", json=BODIES[path], timeout=30)  # fails at once now
        assert whole.status_code == 503


def test_a_whole_answer_s_late_failure_is_its_body(opening):
    opening.error = InputError("its weights are not whole")
    threading.Timer(0.2, opening.go.set).start()
    with live(opening.registry, SETTINGS) as address:
        answer = httpx.post(f"{address}/v1/messages", json=BODIES["/v1/messages"], timeout=30)
    assert answer.json()["error"]["message"] == "tiny can't be opened: its weights are not whole"


def test_what_is_wrong_is_said_by_a_status_while_a_model_opens(opening):
    with live(opening.registry, SETTINGS) as address:
        for settings, status in (({"model": "none"}, 404), ({"temperature": 9}, 400)):
            body = BODIES["/v1/chat/completions"] | {"stream": True} | settings
            assert httpx.post(f"{address}/v1/chat/completions", json=body).status_code == status
        opening.go.set()


def test_who_leaves_while_a_model_opens_asks_nothing_of_it(opening, caplog):
    caplog.set_level("INFO", "clearseek.serve.requests")
    with live(opening.registry, SETTINGS) as address:
        body = BODIES["/v1/chat/completions"] | {"stream": True}
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=30) as answer:
            assert next(answer.iter_raw()) == b": keep-alive\n\n"
        wait_for(lambda: "request" in caplog.messages, "who left is not noticed")
        opening.go.set()
        opening.wait()
    assert opening.model.service.asked == []
    assert opening.model.num_claims == 0


def asked(client, **settings):
    """A question on the page, and the answer that was begun to it."""
    one = client.post("/api/conversations", json={}).json()["id"]
    said = client.post(f"/api/conversations/{one}/messages", json={"text": "12 + 5?"}).json()
    answer = client.post(f"/api/conversations/{one}/answers", json={"parent": said["id"], **settings})
    assert answer.status_code == 201, answer.text
    return one, answer.json()


def end_of(client, id):
    """The last event of an answer."""
    with client.stream("GET", f"/api/answers/{id}/events") as stream:
        data = [line for line in stream.iter_lines() if line.startswith("data: ")]
    return json.loads(data[-1].removeprefix("data: "))["end"]


@pytest.fixture
def page(opening):
    with live(opening.registry, SETTINGS) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client
        opening.go.set()


def test_the_page_s_answer_is_there_before_its_model_is(page, opening):
    """So whoever reloads the page sees that it is on its way, and does not ask again."""
    conversation, answer = asked(page)
    kept = page.get(f"/api/conversations/{conversation}").json()
    assert [message["id"] for message in kept["messages"]][1:] == [answer["id"]]
    assert kept["leaf"] == answer["id"]
    assert kept["messages"][-1]["state"] == answer["state"] == "writing"
    opening.go.set()
    end = end_of(page, answer["id"])
    assert (end["state"], end["text"]) == ("done", "17.")
    assert opening.model.num_claims == 0
    assert len(opening.model.service.asked) == 1


def test_an_answer_can_be_stopped_while_its_model_opens(page, opening):
    conversation, answer = asked(page)
    now = page.post(f"/api/answers/{answer['id']}/answer-now")
    assert "still being opened" in now.json()["error"]["message"]
    page.post(f"/api/answers/{answer['id']}/stop")
    assert end_of(page, answer["id"])["state"] == "stopped"
    again = page.post(f"/api/conversations/{conversation}/answers", json={"message": answer["id"]})
    assert again.status_code == 201
    opening.go.set()
    assert end_of(page, answer["id"])["text"] == "17."
    assert len(opening.model.service.asked) == 1


def test_a_model_that_can_not_be_opened_is_said_in_the_answer(page, opening):
    opening.error = InputError("its weights are not whole")
    conversation, answer = asked(page)
    opening.go.set()
    end = end_of(page, answer["id"])
    assert (end["state"], end["error"]) == ("failed", "tiny can't be opened: its weights are not whole")
    assert page.get(f"/api/conversations/{conversation}").json()["messages"][-1]["state"] == "failed"


def test_a_conversation_deleted_while_a_model_opens_asks_nothing(page, opening):
    conversation, answer = asked(page)
    page.delete(f"/api/conversations/{conversation}")
    opening.go.set()
    opening.wait()
    assert page.get(f"/api/answers/{answer['id']}/events").status_code == 404
    assert opening.model.service.asked == []


@needs_browser
def test_a_page_reloaded_while_a_model_opens_shows_one_answer_on_its_way(browser, tokenizer):
    opening = Opening(talking(tokenizer, "tiny"))
    with live(opening.registry, SETTINGS) as address, Visit(browser, address) as visit:
        try:
            visit.page.locator("#message").fill("12 + 5?")
            visit.page.keyboard.press("Enter")
            expect(visit.page.locator("article")).to_have_count(2)
            visit.page.reload()
            expect(visit.page.locator("article")).to_have_count(2)
            expect(visit.page.get_by_text("Try again")).to_have_count(0)
        finally:
            opening.go.set()
        expect(visit.answered().locator("> .prose")).to_have_text("네.")
        expect(visit.page.locator("article")).to_have_count(2)
    assert len(opening.model.service.asked) == 1
