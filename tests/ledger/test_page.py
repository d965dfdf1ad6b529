"""The page: self-contained, escaped everywhere, in words, whole on partial runs."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clearseek.ledger import phrases
from clearseek.ledger.answers import gather, split_completion, spread
from clearseek.ledger.charts import Series, line_chart, nice_ticks, smooth, thin
from clearseek.ledger.lines import encode_line
from clearseek.ledger.log import Ledger
from clearseek.ledger.phrases import count, duration, memory, money, percent, power
from clearseek.ledger.report import write_report
from tests.ledger.synthetic import PLANS, PROBLEMS, write_run

VOID = {"meta", "input", "br", "img", "hr", "link"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 617*10 }}</style>"


class Page(HTMLParser):
    """Tags with their attributes, the words, and every tag that was left open or closed unopened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)
        self.unbalanced += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words += data


def page_of(run: Path) -> str:
    write_report(run)
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(write_run(tmp_path_factory.mktemp("runs") / "r1-mini"))


def test_the_page_opens_with_one_sentence_in_words(html: str) -> None:
    told = re.search(r"<h1>(.*?)</h1>", html)
    assert told is not None
    assert told[1].replace("\u00a0", " ") == (
        "A model of 1.4M parameters was trained from random weights in 9 min 01 s on 2 cores for $0.01; "
        "it now solves 88 % of problems it has never seen."
    )


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in html
    assert "url(" not in html
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}, addresses
    assert "default-src 'none'" in html


def test_the_page_is_well_formed_and_everything_is_on_it(html: str) -> None:
    page = Page(html)
    assert page.unbalanced == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert str(attributes.get("href", "#")) in {"#", *(f"#{name}" for name in ids)}
    for plan in PLANS:
        assert plan.name in page.words
    for problem in PROBLEMS:
        assert problem[2] in page.words
        assert problem[4] in page.words
    for words in ("95", "Korean", "word problems", "Reward", "Length of an answer", "every link intact"):
        assert words in page.words
    languages = {attributes.get("lang") for _, attributes in page.tags}
    assert {"en", "ko", "zh-Hans"} <= languages
    assert page.words.count("Each task in each language") == 1


def test_the_script_is_the_one_that_the_policy_allows(html: str) -> None:
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_whatever_a_model_or_a_user_wrote_is_escaped(tmp_path: Path) -> None:
    def evil(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        if kind == "run":
            return fields | {"recipe": EVIL, "dtype_reason": EVIL, "versions": {EVIL: EVIL}}
        if kind == "data":
            return fields | {"source": EVIL, "fingerprint": EVIL}
        if kind == "eval":
            return fields | {"by_task": {EVIL: {"pass_at_1": 0.5, "by_language": {EVIL: 0.5}}}}
        if kind == "stage_finished":
            return fields | {"outputs": [{"name": EVIL, "path": EVIL, "sha256": EVIL}]}
        return fields

    run = write_run(tmp_path / "run", change=evil)
    with Ledger(run / "ledger.jsonl") as ledger:
        ledger.append("stage_started", EVIL, kind_of_stage=EVIL, config={}, parents=[])
        for step in range(1, 40):
            ledger.append("step", EVIL, step=step, loss=1.0)
        ledger.append("eval", EVIL, step=1, pass_at_1=0.5, ci95=[0.4, 0.6], n=3)
    with Ledger(run / "samples.jsonl") as samples:
        samples.append(
            "sample", EVIL, step=1, problem_id="e", family=EVIL, language=EVIL, prompt=EVIL, answer=EVIL,
            completion=f"{EVIL}</think>{EVIL}\ud800", verdict=EVIL,
        )  # fmt: skip
    page = Page(page_of(run))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]
    assert page.unbalanced == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words.count(EVIL) >= 10
    assert "6170" not in page.words


@pytest.mark.parametrize("until", [0, 1, 2, 3, 30, 320, 395, 500])
def test_a_run_killed_midway_has_a_whole_page(tmp_path: Path, until: int) -> None:
    run = write_run(tmp_path / "run", until=until)
    if until % 2:
        (run / "samples.jsonl").unlink()
        (run / "timings.jsonl").unlink()
    page = Page(page_of(run))
    assert page.unbalanced == []
    assert "stopped" in page.words or not until
    told = {0: "there is no model yet", 30: "has not been examined yet", 395: "so far it solves"}
    assert told.get(until, "") in page.words


def test_records_of_another_shape_do_not_break_the_page(tmp_path: Path) -> None:
    def odd(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        if kind == "eval":
            return {"pass_at_1": float("nan"), "ci95": None, "by_task": {"a": 0.25}, "by_language": None}
        if kind == "stage_started":
            return {"kind_of_stage": None, "parents": None, "parameters": {"total": "many"}}
        if kind == "step":
            return {"step": fields["step"], "loss": float("inf"), "tokens": None}
        return fields | {"outputs": None}

    page = Page(page_of(write_run(tmp_path / "run", change=odd)))
    assert page.unbalanced == []
    assert "25" in page.words


def test_a_run_on_an_accelerator_claims_no_price(tmp_path: Path) -> None:
    def cuda(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"device": "cuda:0"} if kind == "run" else fields

    told = re.search(r"<h1>(.*?)</h1>", page_of(write_run(tmp_path / "run", change=cuda)))
    assert told is not None
    assert "$" not in told[1]
    assert "on a cuda:0 device" in told[1]


def test_a_users_own_model_is_not_called_random_and_overlap_is_said(tmp_path: Path) -> None:
    def given(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        if kind == "stage_started" and stage == "pretrain":
            return fields | {"parents": [{"path": "/models/my-base/", "sha256": "0"}]}
        return fields | {"train_held_out_overlap": 2} if kind == "data" else fields

    html = page_of(write_run(tmp_path / "run", change=given))
    assert "trained from the model my-base" in html
    assert "never seen" not in html.partition("</h1>")[0]
    assert "None of these problems was in its training" not in html


def test_numbers_in_words() -> None:
    assert [duration(s).replace("\u00a0", " ") for s in (0.04, 9.96, 520, 7500)] == [
        "0.0 s", "10 s", "8 min 40 s", "2 h 05 min",
    ]  # fmt: skip
    assert [count(n) for n in (12, 12_300, 913_000, 1_424_000, 671e9, 14.8e12)] == [
        "12", "12K", "0.9M", "1.4M", "671B", "15T",
    ]  # fmt: skip
    assert [percent(x).replace("\u00a0", " ") for x in (0.875, 1.0, 0.0, 0.9999, 0.001, None)] == [
        "88 %", "100 %", "0 %", "100.0 %", "0.1 %", "–",
    ]  # fmt: skip
    assert [money(x) for x in (0.0, 0.004, 0.0142, 1234.5)] == [
        "$0.00",
        "less than $0.01",
        "$0.01",
        "$1,234.50",
    ]
    assert power(1.34e13).replace("\u00a0", " ") == "1.3 × 10¹³"
    assert power(9.96e5).replace("\u00a0", " ") == "1.0 × 10⁶"
    assert memory(3 << 30).replace("\u00a0", " ") == "3.0 GiB"
    assert set(phrases.KINDS) == {"tokenizer", "pretrain", "sft", "rl", "reject", "distill", "eval"}


def test_thought_and_answer_are_told_apart() -> None:
    end = "<｜end▁of▁sentence｜>"
    assert split_completion(f"a < b</think>7{end}", True) == ("a < b", "7")
    assert split_completion("still thinking", True) == ("still thinking", None)
    assert split_completion(f"<think>still{end}", False) == ("still", None)
    assert split_completion("The answer is 7.", False) == ("", "The answer is 7.")
    assert split_completion(f"</think>{end}", True) == ("", "")


def test_answers_are_gathered_by_problem_and_kept_in_bounds() -> None:
    samples = [
        {"stage": "rl", "step": step, "problem_id": f"p{n}", "completion": "x" * 9000 + "</think>1"}
        for step in range(50)
        for n in range(40)
    ]
    problems = gather(samples)
    assert len(problems) == 24
    answers = problems[0].answers
    assert [answer.step for answer in answers] == [0, 10, 20, 29, 39, 49]
    assert [answer.final for answer in answers] == [False] * 5 + [True]
    assert answers[0].thought.endswith("… (5,000 more characters)")
    assert gather([{"nonsense": 1}, {"problem_id": "p"}]) == []
    assert spread([{"a": 1}], 6) == [{"a": 1}]


def test_the_evaluation_at_a_stage_s_end_stands_at_its_last_step(html: str) -> None:
    """It is written as step −1; every curve begins at step 1."""
    assert set(re.findall(r">step ([^<]*)<", html)) == {"1"}
    chart = html[html.index("Right answers") :]
    chart = chart[: chart.index("</svg>")]
    marks = [float(x) for x in re.findall(r'class="mark c\d" cx="([^"]+)"', chart)]
    assert max(marks) == max(float(x) for x in re.findall(r"[ML]([\d.]+) ", chart))


def test_charts_keep_their_points_inside_and_survive_odd_numbers() -> None:
    points = [(float(x), x % 7 * 1.5) for x in range(1000)] + [(1000.0, float("nan"))]
    chart = line_chart("Loss", "note", [Series("a", 1, points, [(3.0, 9.0)])])
    assert chart is not None
    xy = [
        float(number)
        for path in re.findall(r' d="M([^"]+)"', chart.svg)
        for number in re.findall(r"[\d.-]+", path)
    ]
    assert min(xy) >= 0
    assert max(xy[::2]) <= 440
    assert max(xy[1::2]) <= 196
    assert len(chart.svg) < 40_000
    assert line_chart("x", "", [Series("a", 1, [(1.0, float("inf"))])]) is None
    assert line_chart("x", "", [Series("a", 1, [(1.0, 2.0), (1.0, 2.0)])]) is not None


def test_the_ticks_of_small_shares_differ() -> None:
    chart = line_chart("x", "", [Series("a", 1, [(1.0, 0.0), (2.0, 0.02)])], share=True)
    assert chart is not None
    ticks = re.findall(r">([^<]*%)<", chart.svg)
    assert len(set(ticks)) == len(ticks) >= 4


def test_ticks_are_round_and_cover_the_range() -> None:
    assert nice_ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1.0]
    assert nice_ticks(0.92, 6.3) == [0, 2, 4, 6, 8]
    for low, high in ((0.0, 0.0), (3.0, 3.0), (-5.0, 1e-3), (1e-7, 3e-6), (99.0, 1e9)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 12


def test_smoothing_neither_lags_nor_changes_a_straight_line() -> None:
    line = [(float(x), 2.0 * x) for x in range(200)]
    assert [y for _, y in smooth(line)] == pytest.approx([y for _, y in line])
    assert len(thin(line, 50)) <= 50
    assert thin(line, 50)[-1] == line[-1]


def test_lines_that_are_not_records_are_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "samples.jsonl").open("ab") as file:
        file.write(b"not json\n" + encode_line({"completion": None}) + b'{"torn')
    assert Page(page_of(run)).unbalanced == []
