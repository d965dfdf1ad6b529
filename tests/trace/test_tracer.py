"""Planted passages in three languages are found with the right document and the steps that really read it."""

import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from clearseek.cli.trace import command
from clearseek.config.errors import InputError, RunError
from clearseek.ledger.verifier import verify_run
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.index import index_directory, open_index
from clearseek.trace.rollouts import VERDICTS, open_rollouts
from clearseek.trace.sources import run_readings
from clearseek.trace.tracer import LONGEST_TEXT_BYTES, Tracer
from clearseek.train.rollouts import _VERDICTS
from tests.trace.traced_run import PAGES, Taken, traced_run

WORDS = {
    "en": "amber basin cedar delta ember fjord grove harbor inlet juniper kelp lagoon moss nectar orchid pine",
    "ko": "가람 나래 다솜 라온 마루 바람 사랑 아라 자람 차돌 하늘 노을 구름 이슬 여울 소담",
    "zh": "山 水 云 月 风 花 雪 雨 江 河 湖 海 竹 松 梅 兰 石 泉 林 谷",
}


def planted(language: str, rng: random.Random) -> str:
    """A passage that stands nowhere else."""
    words = [rng.choice(WORDS[language].split()) for _ in range(14)]
    return ("" if language == "zh" else " ").join(words)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory) -> tuple[Path, list[Taken], dict[str, list[str]]]:
    """A run with 200 passages planted in its pages and rows, and what its steps really took."""
    rng = random.Random(5)
    passages = {language: [planted(language, rng) for _ in range(70)] for language in WORDS}
    flat = [(language, text) for language, texts in passages.items() for text in texts][:200]

    def plant(folder: Path) -> None:
        pages = sorted((folder / "pages").rglob("*.md"))
        for number, (_, text) in enumerate(flat[:150]):
            page = pages[number % len(pages)]
            page.write_text(page.read_text(encoding="utf-8") + f"\n({text})\n", encoding="utf-8")
        with (folder / "rows.jsonl").open("a", encoding="utf-8") as rows:
            for _, text in flat[150:]:
                row = {"prompt": "Which words?", "thought": "these ones", "answer": text}
                rows.write(json.dumps(row, ensure_ascii=False) + "\n")

    run_dir, taken = traced_run(tmp_path_factory.mktemp("traced"), prepare=plant)
    return run_dir, taken, {"all": [text for _, text in flat]}


@pytest.fixture(scope="module")
def tracer(run) -> Tracer:
    return Tracer(run[0])


def rows_words(taken: list[Taken], run_dir: Path, stage: str) -> list[tuple[int, str]]:
    """(step, words) of every piece of a document that a stage's steps took."""
    tokenizer = Tokenizer.load(run_dir / "checkpoints" / stage)
    found = []
    for one in taken:
        if one.stage.split("/")[0] == stage:
            for tokens, numbers in zip(one.rows.tokens, one.rows.segments, strict=True):
                for number in range(1, numbers.max() + 1):
                    found.append((one.step, tokenizer.decode(tokens[numbers == number].tolist())))
    return found


def test_all_planted_passages_are_found_with_document_and_steps(run, tracer):
    run_dir, taken, passages = run
    words = {stage: rows_words(taken, run_dir, stage) for stage in ("pretrain", "sft", "rl")}
    held_out = "".join(p.read_text(encoding="utf-8") for p in (run_dir / "data").rglob("*.held_out.jsonl"))
    found = 0
    for text in passages["all"]:
        answer = f"Well, as the book says: {text}! That is all."
        trace = tracer.trace(answer, num_documents=100)
        kept = [d for s in trace.spans for d in s.documents if text in s.text]
        kinds = {seen["kind"] for document in kept for seen in document.seen}
        if kinds == {"tokenizer"}:
            assert text in held_out, "a passage that was trained on is found"
            continue
        found += 1
        assert any(d.source.endswith(("pages (without every 5th)", "rows.jsonl")) for d in kept)
        for seen in (seen for document in kept for seen in document.seen):
            # every step that took the whole passage in one piece has read it; pieces cut inside it are more
            whole = {step for step, piece in words[seen["stage"]] if text in piece}
            assert whole <= set(seen["steps"]), (text, seen)
            if seen["stage"] != "pretrain":  # rows there are never cut
                assert whole == set(seen["steps"])
            rates = [r["learning_rate"] for r in run_readings(run_dir).stage(seen["stage"]).steps]
            assert seen["learning_rates"] == [rates[step - 1] for step in seen["steps"]]
    assert found >= 170
    assert len(passages["all"]) == 200


def test_the_document_named_holds_the_passage(run, tracer):
    run_dir, _, passages = run
    text = passages["all"][0]
    (span,) = tracer.trace(f"x {text} y").spans
    document = span.documents[0]
    rows = [json.loads(row) for row in (run_dir / "data/pretrain/0.jsonl").read_text().splitlines()]
    (holder,) = [row for row in rows if text in row["text"]]
    assert (document.sha256, document.place) == (holder["sha256"], holder["place"])
    assert document.licence == "not stated"
    assert span.text == text
    assert f"x {text} y".encode()[span.start : span.end].decode() == text


def test_what_was_held_out_is_told(run, tracer):
    page = (run[0].parent / "pages" / "en" / "04.md").read_text(encoding="utf-8")
    shared = page.split(" number ")[0]
    trace = tracer.trace(f"{shared} number", min_words=4)
    assert any(name.startswith("held out of pretrain/0") for s in trace.spans for name in s.evaluation)


def test_no_span_is_an_answer(tracer):
    trace = tracer.trace("Nothing of this stands anywhere in there, quite surely zebra xylophone quark.")
    assert (trace.num_spans, trace.spans) == (0, [])


def test_rollouts_are_searched_with_their_step(run, tracer):
    run_dir, _, _ = run
    stage = run_readings(run_dir).stage("rl")
    rollouts = open_rollouts(run_dir, stage)
    texts = rollouts.texts(Tokenizer.load(run_dir / "checkpoints" / "rl"))
    number = max(range(len(texts)), key=lambda n: len(texts[n]))
    problem = texts[number].split("\n")[0]
    trace = tracer.trace(problem, min_words=3, num_documents=1000)
    seen = [d for s in trace.spans for d in s.documents if d.source == "rollouts of rl"]
    assert seen
    steps = {step for d in seen for s in d.seen for step in s["steps"]}
    assert rollouts.at(number)[0] in steps
    assert {d.teacher["stage"] for d in seen} == {"rl"}


def test_a_model_from_elsewhere_that_wrote_a_source_is_named(run, tracer):
    run_dir, _, passages = run
    (span,) = tracer.trace(passages["all"][-1], min_words=8).spans
    assert [one.teacher for one in span.documents] == [
        {"stage": None, "model": "Reasoner-7B", "sha256": None}
    ]
    (page, *_) = tracer.trace(passages["all"][0], min_words=8).spans
    assert {one.teacher for one in page.documents} == {None}
    plain = CliRunner().invoke(command, [str(run_dir), passages["all"][-1]])
    assert "written by a model: Reasoner-7B, as the recipe states" in plain.output


def test_verdicts_are_numbered_as_training_numbers_them():
    assert tuple(verdict.value for verdict in _VERDICTS) == VERDICTS


def test_a_sealed_run_is_not_written_to(run, tracer):
    before = {path: path.read_bytes() for path in run[0].rglob("*") if path.is_file()}
    tracer.trace("anything at all")
    verify_run(run[0])
    assert {path: path.read_bytes() for path in run[0].rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("text", "message"), [("  \n", "no text to trace"), ("a" * (LONGEST_TEXT_BYTES + 1), "at most 1,048,576")]
)
def test_an_empty_or_huge_text_says_so(tracer, text, message):
    with pytest.raises(InputError, match=message):
        tracer.trace(text)


def test_a_long_text_and_half_a_character_are_traced(tracer, run):
    text = run[2]["all"][0]
    assert tracer.trace("\ud800 " + text + " \ud800").num_spans == 1
    assert tracer.trace(f"{text} " * 200).spans


def test_an_index_that_is_damaged_is_built_again(run, tracer):
    shelf = run_readings(run[0]).stage("pretrain").data[0]["documents_sha256"]
    for damage in ("suffixes", "text", "index.json"):
        file = index_directory(shelf) / damage
        file.write_bytes(file.read_bytes()[:-8])
        assert open_index(shelf) is None
        assert Tracer(run[0]).trace(run[2]["all"][0]).num_spans == 1
        assert open_index(shelf) is not None


def test_a_run_whose_documents_changed_is_not_traced_by_an_older_index(run, tmp_path):
    copy = Path(shutil.copytree(run[0], tmp_path / "copy"))
    shutil.rmtree(index_directory(run_readings(copy).stage("pretrain").data[0]["documents_sha256"]))
    shard = copy / "data" / "pretrain" / "0.jsonl"
    shard.write_bytes(shard.read_bytes().replace("灯塔".encode(), "码头".encode(), 1))
    with pytest.raises(RunError, match="is not what stage pretrain trained on"):
        Tracer(copy)


def test_a_half_copied_run_says_what_is_missing(run, tmp_path):
    copy = Path(shutil.copytree(run[0], tmp_path / "copy"))
    shutil.rmtree(
        index_directory(run_readings(copy).stage("pretrain").data[0]["documents_sha256"]), ignore_errors=True
    )
    (copy / "data" / "pretrain" / "0.jsonl").unlink()
    with pytest.raises(RunError, match="half copied"):
        Tracer(copy)


def test_the_command_prints_and_writes_json(run):
    runner, text = CliRunner(), run[2]["all"][0]
    plain = runner.invoke(command, [str(run[0]), text])
    assert plain.exit_code == 0, plain.output
    assert "match the training data" in plain.output
    assert "learning rate" in plain.output
    piped = runner.invoke(command, [str(run[0]), "-", "--json"], input=text)
    assert json.loads(piped.stdout)["spans"][0]["text"] == text
    nothing = runner.invoke(command, [str(run[0]), "zebra quark xylophone"])
    assert "No span of 8 tokens found" in nothing.output
    broken = runner.invoke(command, [str(run[0]), "-"], input=b"caf\xe9")
    assert isinstance(broken.exception, InputError)
    assert "not UTF-8 (byte 3)" in str(broken.exception)


def test_the_index_is_built_without_a_text(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runner = CliRunner()
    built = runner.invoke(command, [str(run[0]), "--index"])
    assert built.exit_code == 0, built.output
    assert "indexed for tracing: " in built.stdout
    assert "indexing " in built.stderr
    notes = []
    tracer = Tracer(run[0], notes.append)
    assert notes == []
    again = runner.invoke(command, [str(run[0]), "--index", "--json"])
    assert again.stderr == ""
    found = json.loads(again.stdout)
    searched = tracer.trace("nothing")
    assert (found["documents"], found["bytes"]) == (searched.documents_searched, searched.bytes_searched)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give the TEXT to trace, or --index"),
        (["a text", "--index"], "a TEXT does not go with --index"),
        (["--index", "--spans", "10"], "--spans does not go with --index"),
    ],
)
def test_a_trace_without_a_text_and_an_index_with_one_are_refused(run, arguments, told):
    refused = CliRunner().invoke(command, [str(run[0]), *arguments])
    assert refused.exit_code == 2
    assert told in refused.output


def test_a_run_without_documents_says_that_there_is_nothing_to_index(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("")
    told = CliRunner().invoke(command, [str(tmp_path), "--index"])
    assert "there is nothing to index" in told.output


def test_what_only_the_tokenizer_read_is_told_as_such(tracer):
    page = PAGES["zh"].format(n=4, m=31)  # every fifth page is held out of pretraining
    (span,) = tracer.trace(page, min_words=12).spans
    assert span.evaluation == ["held out of pretrain/0"]
    (seen,) = [seen for document in span.documents for seen in document.seen]
    assert (seen["stage"], seen["kind"], seen["steps"]) == ("tokenizer", "tokenizer", [])
    trained = PAGES["zh"].format(n=3, m=24)
    told = {
        seen["kind"] for one in tracer.trace(trained, min_words=12).spans[0].documents for seen in one.seen
    }
    assert told == {"pretrain"}


def test_a_teacher_that_is_no_stage_is_told_by_its_directory(run, tmp_path):
    """As the ledger names a model from outside the run."""
    ledger = tmp_path / "ledger.jsonl"
    lines = (run[0] / "ledger.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if '"kind":"teacher"' in line)
    assert run_readings(run[0]).teacher_of("rl")["model"] == "sft"
    lines[place] = lines[place].replace('"model":{"stage":"sft"', '"model":{"path":"Qwen3-0.6B"')
    ledger.write_text("".join(lines), encoding="utf-8")
    assert run_readings(tmp_path).teacher_of("rl")["model"] == "Qwen3-0.6B"


def test_answers_that_no_step_learnt_from_are_searched_where_asked(run, tmp_path):
    copy = Path(shutil.copytree(run[0], tmp_path / "copy"))
    rows = [{"prompt": "Which lamp?", "thought": "of them all the amber one", "answer": "a lamp nobody lit"}]
    told = [json.dumps(row) + "\n" for row in rows]
    (copy / "data" / "rl.jsonl").write_text("".join(told), encoding="utf-8")
    ledger = copy / "ledger.jsonl"
    lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if '"kind":"teacher"' in line)
    lines[place] = lines[place].replace('"rows":0', '"rows":1')
    ledger.write_text("".join(lines), encoding="utf-8")
    text = "of them all the amber one\na lamp nobody lit"
    assert Tracer(copy).trace(text, min_words=6).num_spans == 0
    (span,) = Tracer(copy, sampled=True).trace(text, min_words=6).spans
    (document,) = span.documents
    assert document.source == "data/rl.jsonl"
    assert [(seen["kind"], seen["steps"]) for seen in document.seen] == [("sampled", [])]
    plain = CliRunner().invoke(command, [str(copy), text, "--all", "--min-tokens", "6"])
    assert "sampled, never trained on" in plain.output
