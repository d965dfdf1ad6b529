"""What formats cost: figures of fp32 against references, and that a rounder format is farther."""

import json
import math

import numpy as np
import pytest
import torch

from clearseek.cli.main import main
from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.engine.formats import Format
from clearseek.eval import formats
from clearseek.eval.formats import bench_formats
from clearseek.model.checkpoint import save_model
from clearseek.model.kernels.library import why_not
from clearseek.tasks.registry import FAMILIES
from clearseek.text.tokenizer import Tokenizer
from tests.model.tiny import GROUPED, tiny_model

TEXT = "12 + 5 = 17, so the answer is 17."
LARGER = GROUPED | {"hidden_size": 64, "intermediate_size": 96}


@pytest.fixture
def tokenizer():
    return Tokenizer.train([TEXT] * 20, 300)


@pytest.fixture
def model(tokenizer):
    shape = LARGER | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 512}
    return tiny_model(ModelConfig(family="llama", **shape), std=0.2).requires_grad_(False)


@pytest.fixture
def place(tmp_path, tokenizer, model, monkeypatch):
    monkeypatch.setattr("clearseek.engine.bench.speed._TURN_SECONDS", 0.001)
    monkeypatch.setattr(formats, "_LONGEST_ANSWER", 12)
    monkeypatch.setattr(formats, "_WINDOW", 100)
    directory = tmp_path / "model"
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory


def windows(model, *sizes):
    draw = np.random.default_rng(0)
    return [(draw.integers(7, model.config.vocab_size, size), first) for size, first in sizes]


def test_perplexity_in_fp32_is_the_forward_pass_s(model):
    text = windows(model, (300, 0), (140, 60), (9, 7))
    nats = count = 0.0
    for ids, first in text:
        tokens = torch.from_numpy(ids)[None]
        hidden = model(tokens[:, :-1], torch.ones_like(tokens[:, :-1]), torch.float32, 0).states
        log_probs = model.logits(hidden).log_softmax(-1)[0].gather(1, tokens[0, 1:, None])[first:]
        nats, count = nats - float(log_probs.sum()), count + len(log_probs)
    found, divergence = formats._distance(model, Format("float32"), text)
    assert found == pytest.approx(nats / count, abs=1e-5)
    assert divergence == 0


def test_divergence_is_kullback_and_leibler_s(model):
    text = windows(model, (20, 3))
    halved = tiny_model(model.config, std=0.1).requires_grad_(False)
    exact, other = (
        one.logits(one(*_inputs(text[0][0]), torch.float32, 0).states).log_softmax(-1)[0, 3:]
        for one in (model, halved)
    )
    wanted = torch.nn.functional.kl_div(other, exact, log_target=True, reduction="batchmean")
    runners = {"exact": model, "other": halved}
    real = formats._scorer

    def scorer(_, form, blocks):
        return real(runners["other" if form.group == 64 else "exact"], Format("float32"), blocks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_scorer", scorer)
        found = formats._distance(model, Format("float32", 64), text)[1]
    assert found == pytest.approx(float(wanted), rel=1e-4)


def _inputs(ids):
    tokens = torch.from_numpy(ids)[None, :-1]
    return tokens, torch.ones_like(tokens)


def test_rounder_formats_are_smaller_and_farther(place, tmp_path):
    if why_not():
        pytest.skip(why_not())
    (tmp_path / "text.txt").write_text(TEXT * 9)
    names = ["float32", "bfloat16", "int8", "int4", "int4,head=int8"]
    result = bench_formats(place, names, tmp_path / "text.txt", list(FAMILIES)[:1], problems=3)
    rows = result["formats"]
    assert rows["float32"]["kl"] == 0
    assert rows["int8"]["kl"] < rows["int4"]["kl"]
    assert [
        rows[name]["bytes"] for name in ("float32", "bfloat16", "int8", "int4,head=int8", "int4")
    ] == sorted((row["bytes"] for row in rows.values()), reverse=True)
    assert all(0 <= row["pass_at_1"] <= 1 for row in rows.values())
    speed = rows["float32"]["tokens_per_second"]
    assert all(row["times_float32"] == row["tokens_per_second"] / speed > 0 for row in rows.values())


def test_without_text_the_exact_answers_are_read(place, model):
    result = bench_formats(place, ["float32"], problems=3)
    assert result["text"] == "fp32's own answers"
    assert 0 < result["text_tokens"] <= 36
    assert result["parameters"] == sum(one.numel() for one in model.parameters())
    assert result["formats"]["float32"]["perplexity"] >= 1


def test_no_more_text_is_read_than_is_asked_for(place, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 50)
    result = bench_formats(place, ["float32"], tmp_path / "text.txt", problems=1, text_tokens=150)
    assert 100 <= result["text_tokens"] <= 150


def test_a_text_that_is_none_is_refused(place, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"text\.txt is not text in UTF-8"):
        bench_formats(place, ["float32"], tmp_path / "text.txt")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(InputError, match=r"text\.txt is empty; give a file of text"):
        bench_formats(place, ["float32"], tmp_path / "text.txt")


def test_a_format_that_the_model_can_t_have_says_why(place, monkeypatch):
    monkeypatch.setattr("clearseek.engine.engine.why_plain", lambda model, form: "it is Tuesday")
    rows = bench_formats(place, ["int4"], problems=1)["formats"]
    assert "can't be kept in int4 here: it is Tuesday" in rows["int4"]["why"]


def test_the_command_prints_a_row_per_format(place, capsys):
    arguments = ["bench", "formats", str(place), "--formats", "float32", "--problems", "2"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "float32" in said
    assert "2 problems" in said
    assert main([*arguments, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["formats"]["float32"]
    assert math.isfinite(row["perplexity"])
