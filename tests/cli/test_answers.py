"""`generate` and `chat`: what is printed, what is asked of the session, and what the user can do."""

import io
import json

import pytest

from clearseek.cli.conversation import Conversation
from clearseek.cli.main import main
from tests.cli.fakes import FakeSession, put_module


@pytest.fixture
def session(monkeypatch):
    fake = FakeSession()
    put_module(monkeypatch, "clearseek.engine.session", open_session=lambda model, device: fake)
    return fake


def pipe(monkeypatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_generate_marks_the_thought_where_a_program_reads(session, capsys):
    assert main(["generate", "m", "6*7?", "--temperature", "0", "--max-tokens", "9", "--seed", "3"]) == 0
    assert capsys.readouterr().out == "<think>6*7=42</think>\n42\n"
    assert session.asked == [
        ([{"role": "user", "content": "6*7?"}], {"temperature": 0.0, "max_tokens": 9, "seed": 3})
    ]


def test_generate_hides_the_thought(session, capsys):
    assert main(["generate", "m", "6*7?", "--hide-thinking"]) == 0
    assert capsys.readouterr().out == "42\n"


@pytest.mark.parametrize("arguments", [["generate", "m"], ["generate", "m", "-"]])
def test_generate_reads_a_pipe(session, monkeypatch, capsys, arguments):
    pipe(monkeypatch, "  6*7?\n")
    assert main(arguments) == 0
    assert session.asked[0][0][0]["content"] == "6*7?"


def test_generate_json(session, capsys):
    assert main(["generate", "m", "6*7?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "thought": "6*7=42",
        "answer": "\n\n42",
        "tokens": 3,
        "finish_reason": "stop",
    }


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--max-tokens", "3"), "cut short: the limit of 3 tokens was reached (--max-tokens)"),
        (
            ("--max-tokens", "9"),
            "cut short: the model's context is full; a shorter conversation leaves more room",
        ),
        ((), "cut short: the model's context is full; a shorter conversation leaves more room"),
    ],
)
def test_generate_says_what_cut_the_answer_short(session, capsys, options, line):
    session.finish_reason = "length"
    assert main(["generate", "m", "6*7?", "--hide-thinking", *options]) == 0
    assert capsys.readouterr() == ("42\n", line + "\n")


@pytest.mark.parametrize("command", [["generate", "m", "6*7?"], ["chat", "m"], ["eval", "m"]])
@pytest.mark.parametrize("temperature", ["nan", "inf", "-1", "warm"])
def test_a_temperature_is_a_finite_number(session, capsys, command, temperature):
    assert main([*command, "--temperature", temperature]) == 2
    assert "Invalid value for '--temperature': " in capsys.readouterr().err
    assert session.asked == []


def test_generate_refuses_an_empty_prompt(session, monkeypatch, capsys):
    pipe(monkeypatch, "\n")
    assert main(["generate", "m"]) == 2
    assert "the prompt is empty" in capsys.readouterr().err


def talk(monkeypatch, session, *lines: str) -> Conversation:
    pipe(monkeypatch, "".join(f"{line}\n" for line in lines))
    conversation = Conversation(session, "m")
    conversation.run()
    return conversation


def test_chat_remembers_answers_but_does_not_feed_thoughts_back(monkeypatch, capsys):
    session = FakeSession()
    conversation = talk(monkeypatch, session, "one", "two")
    assert session.asked[1][0] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "42"},
        {"role": "user", "content": "two"},
    ]
    assert conversation.messages[1] == {"role": "assistant", "content": "42", "thought": "6*7=42"}
    assert "Ctrl-D to leave" in capsys.readouterr().err


def test_chat_command_opens_the_model(session, monkeypatch, capsys):
    pipe(monkeypatch, "hello\n/exit\nnever read\n")
    assert main(["chat", "m"]) == 0
    assert capsys.readouterr().out == "<think>6*7=42</think>\n42\n"
    assert len(session.asked) == 1


def test_chat_settings_reach_the_session(monkeypatch):
    session = FakeSession()
    talk(monkeypatch, session, "/think off", "/temperature 0.1", "hi")
    settings = session.asked[0][1]
    assert settings["thinking"] is False
    assert settings["temperature"] == 0.1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/think maybe", "/think on or /think off"),
        ("/temperature hot", "needs a number"),
        ("/temperature nan", "needs a number"),
        ("/temperature -1", "needs a number"),
        ("/nothing", "no /nothing here"),
        ("/save", "needs a file name"),
        ("/help", "/temperature X"),
    ],
)
def test_chat_says_what_it_could_not_do(monkeypatch, capsys, line, says):
    session = FakeSession()
    talk(monkeypatch, session, line)
    assert says in capsys.readouterr().err
    assert session.asked == []


def test_chat_clear_forgets(monkeypatch):
    session = FakeSession()
    talk(monkeypatch, session, "one", "/clear", "two")
    assert session.asked[1][0] == [{"role": "user", "content": "two"}]


def test_chat_interrupt_stops_the_answer_and_goes_on(monkeypatch, capsys):
    session = FakeSession([("answer", "4"), ("answer", KeyboardInterrupt)])
    conversation = talk(monkeypatch, session, "one", "two")
    assert len(session.asked) == 2
    assert conversation.messages[1]["content"] == "4"
    assert "stopped" in capsys.readouterr().err


def test_chat_interrupt_before_an_answer_leaves_no_half_turn(monkeypatch):
    session = FakeSession([("thought", KeyboardInterrupt)])
    assert talk(monkeypatch, session, "one").messages == []


def test_chat_says_when_an_answer_was_cut(monkeypatch, capsys):
    session = FakeSession()
    session.finish_reason = "length"
    talk(monkeypatch, session, "one")
    assert "cut short" in capsys.readouterr().err


def test_chat_takes_several_lines(monkeypatch):
    session = FakeSession()
    talk(monkeypatch, session, "one\\", "two")
    assert session.asked[0][0][0]["content"] == "one\ntwo"


def test_chat_saves_json_and_markdown_and_overwrites_nothing(monkeypatch, tmp_path, capsys):
    session = FakeSession()
    json_file, markdown = tmp_path / "talk.json", tmp_path / "talk.md"
    talk(monkeypatch, session, "one", f"/save {json_file}", f"/save {markdown}", f"/save {markdown}")
    assert json.loads(json_file.read_text())["messages"][0] == {"role": "user", "content": "one"}
    assert markdown.read_text() == "# m\n\n## user\n\none\n\n## assistant\n\n> 6*7=42\n\n42\n"
    assert "is there already" in capsys.readouterr().err


def test_chat_save_into_a_missing_folder_is_said(monkeypatch, tmp_path, capsys):
    talk(monkeypatch, FakeSession(), f"/save {tmp_path}/none/talk.json")
    assert "cannot write" in capsys.readouterr().err
