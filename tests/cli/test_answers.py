"""`generate` and `chat`: what is printed, what is asked of the session, and what the user can do."""

import io
import json

import pytest

from clearseek.cli.conversation import Conversation
from clearseek.cli.main import main
from clearseek.engine import constraint
from clearseek.model.checkpoint import save_model
from tests.cli.fakes import FakeSession, put_module
from tests.model.every_family import small
from tests.model.tiny import tiny_model
from tests.serve.live import tiny_tokenizer


@pytest.fixture
def session(monkeypatch):
    fake = FakeSession()
    put_module(monkeypatch, "clearseek.engine.session", open_session=fake.opened)
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
        "answer": "42",
        "tokens": 3,
        "finish_reason": "stop",
        "stopped_by": None,
        "log_probs": [{"token": 5, "text": "42", "log_prob": -0.5}],
        "prompt_tokens": 4,
        "seconds_to_first_token": 0.25,
        "tokens_per_second": 8.0,
        "why_plain": None,
        "speculation": None,
    }


def test_generate_json_says_why_pytorch_and_how_many_guesses_came_true(tmp_path, capsys):
    tokenizer = tiny_tokenizer()
    model = tiny_model(small("qwen3", vocab_size=tokenizer.vocab_size, max_position_embeddings=128))
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    save_model(model, tmp_path, **ids)
    tokenizer.save(tmp_path)
    asked = ["generate", str(tmp_path), "12 + 5?", "--max-tokens", "40", "--temperature", "0", "--json"]
    assert main([*asked, "--speculation", "ngram:3"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["why_plain"] == "its rotary size (12) is not a multiple of 16"
    guessed, accepted = told["speculation"]["guessed"], told["speculation"]["accepted"]
    assert len(guessed) == len(accepted) == 3
    assert guessed[0] >= guessed[1] >= guessed[2] > 0
    assert all(0 <= right <= all_ for right, all_ in zip(accepted, guessed, strict=True))
    assert accepted[0] > 0


def test_generate_several_answers(session, capsys):
    assert main(["generate", "m", "6*7?", "-n", "2", "--best-of", "4", "--top-p", "0.5"]) == 0
    said = capsys.readouterr()
    assert said.out == "<think>6*7=42</think>\n42\n" * 2
    assert said.err == "answer 1 of 2 (stop)\nanswer 2 of 2 (stop)\n"
    asked = {"max_tokens": None, "seed": 0, "num_samples": 2, "best_of": 4, "top_p": 0.5}
    assert session.asked[0][1] == asked
    assert main(["generate", "m", "6*7?", "--n", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["answers"]) == 3


GIVEN = [
    (["--top-p", "0.5"], {"top_p": 0.5}),
    (["--top-k", "20"], {"top_k": 20}),
    (["--min-p", "0.1"], {"min_p": 0.1}),
    (["--temperature", "0"], {"temperature": 0.0}),
    (["--repetition-penalty", "1.1"], {"repetition_penalty": 1.1}),
    (["--frequency-penalty", "0"], {"frequency_penalty": 0.0}),
    (["--presence-penalty", "-1"], {"presence_penalty": -1.0}),
    (["--logit-bias", "3=-100", "--logit-bias", "4=1.5"], {"logit_bias": {3: -100.0, 4: 1.5}}),
    (["--stop", "\n", "--stop", "END"], {"stop": ("\n", "END")}),
    (["--ignore-eos"], {"ignore_eos": True}),
    (["--thinking-budget", "0"], {"thinking_budget": 0}),
    (["--json-object"], {"constraint": constraint.json_object()}),
    (["--regex", "[0-9]+"], {"constraint": constraint.regex("[0-9]+")}),
    (["--choice", "yes", "--choice", "no"], {"constraint": constraint.choice(["yes", "no"])}),
]


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize(("flags", "settings"), GIVEN)
def test_what_is_given_reaches_the_session_and_nothing_else(session, monkeypatch, command, flags, settings):
    pipe(monkeypatch, "6*7?")
    assert main([command, "m", *flags]) == 0
    asked = {name: value for name, value in session.asked[0][1].items() if name != "thinking"}
    assert asked == {"max_tokens": None, "seed": 0, **settings}


def test_fast_forward_is_of_a_constraint(session, capsys):
    assert main(["generate", "m", "6*7?", "--choice", "42", "--fast-forward"]) == 0
    assert session.asked[0][1]["constraint"] == constraint.choice(["42"], fast_forward=True)
    assert main(["generate", "m", "6*7?", "--fast-forward"]) == 2
    assert "--fast-forward is for answers that are held to something" in capsys.readouterr().err


def test_constraints_are_read_from_files(session, tmp_path):
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text('{"type": "integer"}')
    grammar.write_text("start: /[a-z]+/")
    assert main(["generate", "m", "6*7?", "--json-schema", str(schema)]) == 0
    assert main(["generate", "m", "6*7?", "--grammar", str(grammar)]) == 0
    assert [settings["constraint"] for _, settings in session.asked] == [
        constraint.json_schema('{"type": "integer"}'),
        constraint.lark("start: /[a-z]+/"),
    ]


def test_how_weights_are_kept_reaches_the_model(session, monkeypatch):
    pipe(monkeypatch, "")
    flags = ["--format", "int4:64", "--speculation", "ngram:3", "--cache-gib", "1.5"]
    for command in (["generate", "m", "6*7?"], ["chat", "m", "--terminal"]):
        assert main([*command, *flags]) == 0
        how = {"form": "int4:64", "speculation": "ngram:3", "cache_gib": 1.5}
        assert session.opened_with == ("m", {"device": "auto", "exact": None, **how})
        assert main([*command, "--exact"]) == 0
        assert session.opened_with[1]["exact"] is True


@pytest.mark.parametrize("value", ["0", "-1", "nan", "much"])
def test_a_cache_of_no_size_is_refused(session, capsys, value):
    for command in (["generate", "m", "6*7?"], ["chat", "m", "--terminal"], ["serve", "m"]):
        assert main([*command, "--cache-gib", value]) == 2
        assert "--cache-gib" in capsys.readouterr().err
    assert session.opened_with is None


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--top-p", "2"], "error: top_p is 2.0; it has to be above 0 and at most 1\n"),
        (["--top-k", "-1"], "error: top_k is -1; it has to be a whole number of at least 0; 0 keeps all\n"),
        (["--min-p", "nan"], "error: min_p is nan; it has to be from 0 to 1\n"),
        (["--logit-bias", "the=3"], "'the=3' is not ID=VALUE, such as 42=-100\n"),
        (["--logit-bias", "3=1000"], "error: logit_bias[3] is 1000.0; it has to be from -100 to 100\n"),
        (["--stop", ""], "error: stop is ''; it has to be texts of 1 to 512 characters\n"),
        (["--max-tokens", "9", "--thinking-budget", "9"], "it has to be less than max_tokens, which is 9\n"),
        (["--regex", "a", "--choice", "b"], "--regex and --choice can't both be obeyed; give one of them\n"),
        (["--regex", "a", "--ignore-eos"], "error: ignore_eos and constraint contradict: "),
        (["--choice", ""], "error: constraint: a choice needs a list of texts, none of them empty\n"),
        (["--json-schema", "none.json"], "'none.json' does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "chat"])
def test_settings_that_can_t_be_meant_are_told_before_a_model_is_opened(
    session, monkeypatch, capsys, command, flags, says
):
    pipe(monkeypatch, "6*7?")
    assert main([command, "m", *flags]) == 2
    assert says in capsys.readouterr().err
    assert session.opened_with is None


def test_likeliest_tokens_are_for_programs(session, capsys):
    assert main(["generate", "m", "6*7?", "--top-log-probs", "3"]) == 2
    assert "--top-log-probs are printed with --json only" in capsys.readouterr().err
    assert main(["generate", "m", "6*7?", "--top-log-probs", "3", "--json"]) == 0
    assert session.asked[0][1]["top_log_probs"] == 3


def test_an_answer_that_is_late_says_so(session, capsys):
    session.finish_reason = "deadline"
    assert main(["generate", "m", "6*7?", "--timeout", "2.5", "--max-tokens", "3"]) == 0
    assert session.asked[0][1]["deadline_seconds"] == 2.5
    assert capsys.readouterr().err == "cut short: its time was up (--timeout)\n"
    assert main(["generate", "m", "6*7?", "--timeout", "2.5", "--json"]) == 0
    assert session.asked[1][1]["deadline_seconds"] == 2.5


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_a_timeout_is_a_number_above_0(session, capsys, seconds):
    assert main(["generate", "m", "6*7?", "--timeout", seconds]) == 2
    assert "Invalid value for '--timeout'" in capsys.readouterr().err


def test_what_tokens_were_drawn_from_is_for_programs(session, capsys):
    assert main(["generate", "m", "6*7?", "--processed-log-probs"]) == 2
    assert "--processed-log-probs are printed with --json only" in capsys.readouterr().err
    assert main(["generate", "m", "6*7?", "--processed-log-probs", "--json"]) == 0
    assert session.asked[0][1]["processed_log_probs"] is True


def test_a_file_that_is_no_text_is_refused(session, tmp_path, capsys):
    (tmp_path / "g").write_bytes(b"\xff\xfe\xff")
    assert main(["generate", "m", "6*7?", "--grammar", str(tmp_path / "g")]) == 2
    assert "is not text in UTF-8" in capsys.readouterr().err


def test_help_groups_the_options(capsys):
    assert main(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    places = [text.index(heading) for heading in ("Options:", "How tokens are drawn", "Weights and speed:")]
    assert places == sorted(places)
    assert text.count("--top-p") == text.count("--device") == 1


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
