"""`clearseek eval`'s work: which problems are asked, of which model, and that the numbers are right."""

import json

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.config.load import parse_recipe
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import Evaluation, Problems
from clearseek.config.toml import to_toml
from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion
from clearseek.eval.command import ask, chosen_problems, evaluate_path
from clearseek.eval.examine import Examiner
from clearseek.model.checkpoint import load_model, save_model
from clearseek.tasks.registry import FAMILIES
from clearseek.text.tokenizer import Tokenizer
from tests.engine.scripted import PlainVerifiers
from tests.model.tiny import LATENT, tiny_model

LINES = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1), "verifier": "number"} for n in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["12 + 5 = 17, so the answer is 17."] * 20, 300)


def save(directory, tokenizer, context=256):
    """A checkpoint of random weights with its tokenizer."""
    shape = LATENT | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": context}
    model = tiny_model(ModelConfig(**shape), std=0.05)
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory


def recipe(evaluation=None, problems=None):
    return {
        "name": "mine",
        "models": {"m": LATENT},
        "evaluation": evaluation or {},
        "stages": {"rl": {"kind": "rl", "start": "m", "steps": 1, "problems": problems or {}}},
    }


@pytest.fixture
def run(tmp_path, tokenizer):
    """A run of one finished stage."""
    folder = tmp_path / "runs" / "mine"
    save(folder / "checkpoints" / "rl", tokenizer)
    text = to_toml(recipe({"max_completion_tokens": 7, "problems": {"tasks": ["digits"], "levels": [1]}}))
    (folder / "recipe.toml").write_text(text)
    (folder / "ledger.jsonl").write_text(json.dumps({"kind": "stage_finished", "stage": "rl"}) + "\n")
    return folder


@pytest.fixture
def problems_file(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.fixture
def answering(monkeypatch, tokenizer):
    """Engines that give the reference answer to every problem but multiples of 4, in the order asked."""
    asked = []

    def generate(self, requests, on_token=None):
        results = []
        for request in requests:
            prompt = tokenizer.decode(list(request.prompt))
            number = int(prompt.split("What is ")[1].split(" ")[0])
            asked.append(number)
            text = f"so</think>{number + 1 if number % 4 else 999}"
            tokens = [*tokenizer.encode(text), tokenizer.eos_id]
            zeros = [0.0] * len(tokens)
            results.append([Completion(tokens, zeros, "stop") for _ in range(request.num_samples)])
        return results

    monkeypatch.setattr("clearseek.engine.engine.Engine.generate", generate)
    return asked


def test_a_file_is_asked_whole_and_scored(tmp_path, tokenizer, problems_file, answering):
    model = save(tmp_path / "model", tokenizer)
    result = evaluate_path(model, tasks=[str(problems_file)], samples=2, problems=300, device="cpu")
    assert sorted(answering) == list(range(40))
    assert result["pass_at_1"] == pytest.approx(0.75)
    assert result["n"] == 40
    assert result["samples"] == 2
    assert result["by_task"] == {"user": pytest.approx(0.75)}
    assert result["by_language"] == {"en": pytest.approx(0.75)}
    assert result["ci95"][0] < 0.75 < result["ci95"][1]
    assert json.loads(json.dumps(result)) == result


def test_parts_change_nothing(run, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)  # fp32: batches of any width agree
    settings = {"problems": 6, "device": "cpu", "seed": 3}
    whole = evaluate_path(run, **settings)
    monkeypatch.setattr("clearseek.eval.command._COMPLETIONS_AT_A_TIME", 2)
    assert evaluate_path(run, **settings) == whole


def test_every_published_end_ends_a_completion(tmp_path, tokenizer):
    """In `clearseek eval` and in a run's examinations: here every token ends one."""
    directory = save(tmp_path / "model", tokenizer)
    free = evaluate_path(directory, tasks=["digits"], problems=4, device="cpu")
    ends = {"eos_token_id": list(range(tokenizer.vocab_size))}
    (directory / "generation_config.json").write_text(json.dumps(ends))
    ended = evaluate_path(directory, tasks=["digits"], problems=4, device="cpu")
    assert free["mean_completion_tokens"] > ended["mean_completion_tokens"] == 1
    examiner = Examiner(Evaluation(count=4, max_completion_tokens=9), 0, PlainVerifiers())
    tokenizer = Tokenizer.load(directory)
    engine = Engine(load_model(directory), tokenizer.stop_ids, torch.float32)
    record = examiner.examine(engine, tokenizer).record()
    assert record["mean_completion_tokens"] == 1


def test_a_model_of_a_run_is_examined_as_its_recipe_says(run):
    for model in (run, run / "checkpoints" / "rl"):
        result = evaluate_path(model, problems=4, device="cpu")
        assert result["max_completion_tokens"] == 7
        assert set(result["by_task"]) == {"digits"}


def test_another_model_has_room_for_what_its_context_holds(tmp_path, tokenizer):
    model = save(tmp_path / "model", tokenizer, context=120)
    result = evaluate_path(model, tasks=["digits"], problems=1, device="cpu")
    assert 0 < result["max_completion_tokens"] < 120


def test_a_model_without_room_for_its_tokenizer_is_refused(tmp_path, tokenizer):
    model = save(tmp_path / "model", tokenizer)
    Tokenizer.train(["다른 말을 더 배운 것"] * 20, 320).save(model)
    with pytest.raises(InputError, match=r"model: the tokenizer has \d+ tokens, the model only \d+"):
        evaluate_path(model, tasks=["digits"], problems=1, device="cpu")


def test_families_and_files_share_the_problems(problems_file):
    sources = chosen_problems(["digits", str(problems_file), "units"], None)
    asked = ask(sources, 21, seed=0)
    counts = {family: sum(p.family == family for p in asked) for family in ("digits", "units", "user")}
    assert counts == {"digits": 5, "units": 5, "user": 11}
    assert len({problem.id for problem in asked}) == 21


def test_all_families_unless_told(tokenizer):
    assert {problem.family for problem in ask(chosen_problems(None, None), 60, seed=0)} == set(FAMILIES)


def test_the_same_seed_asks_the_same():
    sources = [Problems(tasks=["digits"])]
    assert ask(sources, 5, seed=1) == ask(sources, 5, seed=1)
    assert ask(sources, 5, seed=1) != ask(sources, 5, seed=2)


def test_of_a_file_the_run_learnt_from_only_what_it_held_out_is_asked(problems_file):
    trained = parse_recipe(recipe(problems={"path": str(problems_file)}), "mine")
    asked = ask(chosen_problems([str(problems_file)], trained), 300, seed=0)
    assert 0 < len(asked) < 40
    assert all(problem.held_out for problem in asked)


def test_a_file_that_was_learnt_whole_is_refused(problems_file):
    problems = {"path": str(problems_file), "held_out_path": "test.jsonl"}
    trained = parse_recipe(recipe(problems=problems), "mine")
    with pytest.raises(InputError, match=r"trained on all its problems; those held out are in test\.jsonl"):
        chosen_problems([str(problems_file)], trained)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [(["digit"], "did you mean 'digits'"), (["nowhere.jsonl"], "nowhere.jsonl: no such file")],
)
def test_an_unknown_task_is_refused(tmp_path, tokenizer, tasks, message):
    with pytest.raises(InputError, match=message):
        evaluate_path(save(tmp_path / "model", tokenizer), tasks=tasks, device="cpu")


def test_computing_keeps_to_the_asked_device(tmp_path, tokenizer):
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda is not on this machine"):
            evaluate_path(save(tmp_path / "model", tokenizer), problems=1, device="cuda")
