"""Documents and steps told from the ledger alone are what training took."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.verifier import Wrong, verify_run
from clearseek.recipe.run import run_recipe
from clearseek.text.documents import Conversation, TextDocument
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.kept import text_of
from clearseek.trace.sources import run_readings, source_documents
from clearseek.trace.steps import DocumentSteps, document_steps
from tests.trace.traced_run import Taken, traced_run


@pytest.fixture(scope="module", params=["best_fit", "concatenate"])
def run(request, tmp_path_factory) -> tuple[Path, list[Taken]]:
    return traced_run(tmp_path_factory.mktemp("traced"), request.param)


def told(run_dir: Path, stage: str) -> tuple[list[str], DocumentSteps]:
    """Every document's text, and the steps that the ledger tells."""
    readings = run_readings(run_dir)
    reading = readings.stage(stage)
    sources = [source_documents(readings, reading, i) for i in range(len(reading.data))]
    texts = [text_of(document) for source in sources for document in source]
    return texts, document_steps(readings, reading, sources)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "rl"])
def test_a_step_s_documents_are_those_whose_tokens_it_took(run, stage):
    run_dir, taken = run
    texts, steps = told(run_dir, stage)
    encoded = [as_bytes(tokens) for tokens in encoded_one_by_one(run_dir, stage)]
    assert len(encoded) == len(texts)
    mine = [one for one in taken if one.stage.split("/")[0] == stage]
    assert mine
    for one in mine:
        told_here = set(steps.documents_of(one.step))
        certain, possible = set(), set()
        for segment in segments(one):
            owners = {d for d, tokens in enumerate(encoded) if segment in tokens}
            assert owners & told_here, "a piece that training took belongs to a document"
            possible |= owners
            if len(owners) == 1:
                certain |= owners
        assert certain <= told_here <= possible
        assert len(certain) > 0.8 * len(told_here)
    for document in range(len(texts)):
        assert steps.of(document) == [m.step for m in mine if document in steps.documents_of(m.step)]


def encoded_one_by_one(run_dir: Path, stage: str) -> list[list[int]]:
    """Tokens of every document of a stage, each encoded by itself."""
    tokenizer = Tokenizer.load(run_dir / "checkpoints" / stage)
    readings = run_readings(run_dir)
    found = []
    for index in range(len(readings.stage(stage).data)):
        for document in source_documents(readings, readings.stage(stage), index):
            if isinstance(document, TextDocument):
                found.append([tokenizer.bos_id, *tokenizer.encode_plain(document.text), tokenizer.eos_id])
                continue
            prompt = document.history[0]["content"] if isinstance(document, Conversation) else document.prompt
            found.append(
                [
                    *tokenizer.encode_chat([{"role": "user", "content": prompt}]),
                    *tokenizer.encode_plain(document.thought),
                    tokenizer.think_end_id,
                    *tokenizer.encode_plain(document.answer),
                    tokenizer.eos_id,
                ]
            )
    return found


def segments(taken: Taken) -> list[bytes]:
    """Every piece of a document in the rows of a step."""
    found = []
    for tokens, numbers in zip(taken.rows.tokens, taken.rows.segments, strict=True):
        found += [as_bytes(tokens[numbers == number].tolist()) for number in range(1, numbers.max() + 1)]
    return found


def as_bytes(tokens: list[int]) -> bytes:
    """Four bytes a token, none of which stands in another token's place."""
    return "".join(chr(0x10000 + token) for token in tokens).encode("utf-8")


def test_what_a_run_keeps_is_sealed(run, tmp_path):
    run_dir, _ = run
    verify_run(run_dir)
    changed = Path(shutil.copytree(run_dir, tmp_path / "changed"))
    shard = changed / "data" / "pretrain" / "0.jsonl"
    shard.write_bytes(shard.read_bytes().replace("灯塔".encode(), "码头".encode(), 1))
    with pytest.raises(Wrong, match=r"data/pretrain/0\.jsonl is not the file that line \d+ names"):
        verify_run(changed)
    with pytest.raises(RunError, match="is not what stage pretrain trained on"):
        told(changed, "pretrain")


def test_a_shard_says_where_each_document_came_from(run):
    run_dir, _ = run
    rows = [json.loads(line) for line in (run_dir / "data" / "pretrain" / "0.jsonl").open(encoding="utf-8")]
    assert [row["place"] for row in rows[:2]] == ["en/00.md", "en/01.md"]
    assert rows[0]["sha256"] == hashlib.sha256(rows[0]["text"].encode()).hexdigest()
    assert len(rows) == 60  # of 75, every fifth in each language is held out
    rows = [json.loads(line) for line in (run_dir / "data" / "sft" / "1.jsonl").open(encoding="utf-8")]
    assert rows[1]["place"] == "line 2"
    assert rows[1]["thought"] == "1 twice"
    assert rows[1]["sha256"] == hashlib.sha256(b"What is 1 + 1?\n1 twice\n2").hexdigest()
    held_out = (run_dir / "data" / "pretrain" / "0.held_out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["place"] for line in held_out[:2]] == ["en/04.md", "en/09.md"]


def test_generated_examples_are_not_copied(run):
    run_dir, _ = run
    kept = [r["kept"] for r in run_readings(run_dir).stage("sft").data]
    assert kept == ["generated", "shard"]
    assert not (run_dir / "data" / "sft" / "0.jsonl").exists()


@pytest.mark.parametrize(("what", "message"), [("shard", "half copied"), ("tokenizer", "has no tokenizer")])
def test_a_half_copied_run_says_so(run, tmp_path, what, message):
    copy = Path(shutil.copytree(run[0], tmp_path / "copy"))
    if what == "shard":
        (copy / "data" / "pretrain" / "0.jsonl").unlink()
    else:
        (copy / "checkpoints" / "pretrain" / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=message):
        told(copy, "pretrain")


def test_an_unknown_stage_names_those_that_read_documents(run):
    with pytest.raises(
        InputError, match="no stage 'evaluation' read documents; those that did: pretrain, sft"
    ):
        run_readings(run[0]).stage("evaluation")


def test_a_fork_takes_what_its_stages_kept(run, tmp_path):
    folder = Path(shutil.copytree(run[0].parent, tmp_path / "forked"))
    before = (run[0].parent / "traced.toml").read_text()
    recipe = folder / "traced.toml"
    recipe.write_text(before.replace("steps = 4", "steps = 3"))
    result = run_recipe(str(recipe), out=folder / "run", device="cpu", fork=True)
    assert result.run_dir == folder / "run-2"
    verify_run(result.run_dir)
    assert told(result.run_dir, "pretrain")[0] == told(run[0], "pretrain")[0]
