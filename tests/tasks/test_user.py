"""Users' own problems: what loads, and what each mistake is told."""

import json
import os
from pathlib import Path

import pytest

from clearseek.config.errors import InputError
from clearseek.tasks.user import load_problems
from clearseek.tasks.verify import Verdict, verify
from clearseek.tasks.worker import VerifierPool

GSM8K = Path(os.environ.get("CLEARSEEK_DATA", Path(__file__).parents[2] / "../shared/data")) / "gsm8k"


def put(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return path


def test_our_layout(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def score(candidate, answer): return candidate == answer\n")
    path = put(
        tmp_path / "p.jsonl",
        {"prompt": "What is 6*7?", "answer": 42, "verifier": "number"},
        "",
        {"prompt": "오늘은 무슨 요일?", "answer": "화요일"},
        {
            "prompt": "Give JSON",
            "answer": {"a": [1, True]},
            "verifier": "json",
            "level": 2,
            "family": "forms",
        },
        {"prompt": "Mine", "answer": "x", "verifier": "mine.py:score", "solution": "think", "language": "zh"},
    )
    first, second, third, fourth = load_problems(path)
    assert (first.answer, first.verifier, first.language, first.family) == ("42", "number", "en", "user")
    assert (second.verifier, second.language, second.level) == ("exact", "ko", 1)
    assert (third.answer, third.level, third.family) == ('{"a": [1, true]}', 2, "forms")
    assert (fourth.verifier, fourth.solution, fourth.language) == (
        f"{tmp_path / 'mine.py'}:score",
        "think",
        "zh",
    )
    with VerifierPool() as pool:
        loaded = [first, second, third, fourth]
        assert pool.verify_many([(p.verifier, p.answer, p.answer) for p in loaded]) == [Verdict.correct] * 4


def test_gsm8k_s_layout(tmp_path: Path) -> None:
    row = {"question": "How many?", "answer": "She has 48/2 = <<48/2=24>>24.\nTotal 1,072.\n#### 1,072"}
    (problem,) = load_problems(put(tmp_path / "g.jsonl", row))
    assert problem.answer == "1,072"
    assert problem.verifier == "number"
    assert problem.solution == "She has 48/2 = 24.\nTotal 1,072."
    assert verify(problem.verifier, "1072", problem.answer) is Verdict.correct


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "p"}, ":2: missing field 'answer'"),
        ({"answer": "a"}, ":2: missing field 'prompt'"),
        (
            {"prompt": "p", "answer": "a", "verifer": "exact"},
            ":2: unknown field 'verifer'; did you mean 'verifier'",
        ),
        (
            {"prompt": "p", "answer": "a", "zzz": 1},
            ":2: unknown field 'zzz'; known: prompt, answer, verifier",
        ),
        (
            {"prompt": "p", "answer": "a", "verifier": "nubmer"},
            ":2: unknown verifier 'nubmer'; did you mean 'number'",
        ),
        ({"prompt": "p", "answer": "a", "verifier": "no.py:f"}, ":2: .*cannot read .*no.py"),
        (
            {"prompt": "p", "answer": "a", "verifier": "mine.py:scroe"},
            ":2: .*no function 'scroe'; it defines: score",
        ),
        ({"prompt": "p", "answer": "a", "verifier": "torn.py:f"}, ":2: .*torn.py is not Python"),
        ({"prompt": "p", "answer": "a", "verifier": 5}, ":2: verifier must be text, not 5"),
        (
            {"prompt": "p", "answer": "many", "verifier": "number"},
            ":2: verifier 'number' cannot read .*'many'",
        ),
        ({"prompt": "p", "answer": "(", "verifier": "regex"}, ":2: verifier 'regex' cannot read"),
        ({"prompt": "p", "answer": ""}, ":2: answer is empty"),
        ({"prompt": "p", "answer": None}, ":2: answer must be text, not null"),
        ({"prompt": ["p"], "answer": "a"}, ":2: prompt must be text"),
        ({"prompt": " ", "answer": "a"}, ":2: prompt is empty"),
        ({"prompt": "p", "answer": "a", "language": "fr"}, ":2: language 'fr' is not one of ko, zh, en"),
        ({"prompt": "p", "answer": "a", "level": 0}, ":2: level must be a whole number from 1"),
        ({"prompt": "p", "answer": "a", "level": True}, ":2: level must be a whole number from 1"),
        ({"question": "q", "answer": "no mark"}, ":2: a question's answer must end in '#### ANSWER'"),
        ({"question": "q", "answer": "#### many"}, ":2: verifier 'number' cannot read"),
        ("{torn", ":2: not valid JSON"),
        ("[1]", ":2: expected a JSON object"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, row: object, told: str) -> None:
    (tmp_path / "mine.py").write_text("def score(candidate, answer): return True\n")
    (tmp_path / "torn.py").write_text("def (")
    path = put(tmp_path / "p.jsonl", {"prompt": "p", "answer": "a"}, row)
    with pytest.raises(InputError, match=f"{path.name}{told}"):
        load_problems(path)


def test_a_file_that_is_missing_empty_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="holds no problems"):
        load_problems(put(tmp_path / "empty.jsonl", "", " "))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        load_problems(tmp_path / "binary.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        load_problems(tmp_path)


def test_loading_runs_nothing_of_the_user_s(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit\ndef score(candidate, answer): return True\n")
    load_problems(put(tmp_path / "p.jsonl", {"prompt": "p", "answer": "a", "verifier": "mine.py:score"}))


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not on this machine (CLEARSEEK_DATA)")
@pytest.mark.parametrize(("name", "count"), [("train.jsonl", 7473), ("test.jsonl", 1319)])
def test_every_reference_answer_of_gsm8k_is_correct(name: str, count: int) -> None:
    problems = load_problems(GSM8K / name)
    assert len(problems) == count
    assert all(verify(p.verifier, p.answer, p.answer) is Verdict.correct for p in problems)
    assert all(verify(p.verifier, p.answer.replace(",", ""), p.answer) is Verdict.correct for p in problems)
    assert not any("<<" in p.solution or "####" in p.solution for p in problems)
