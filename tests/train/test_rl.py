"""One reinforcement-learning stage on a tiny model: what it samples, drops, refills, learns and refuses."""

import json

import numpy as np
import pytest
import torch

from clearseek.config.errors import RunError
from clearseek.config.model import ModelConfig
from clearseek.config.progress import SilentProgress
from clearseek.config.recipe import Optimizer, Recipe
from clearseek.ledger.log import Ledger, read
from clearseek.ledger.timings import Timings
from clearseek.model.kernels import library
from clearseek.train.context import StageContext
from clearseek.train.rl import PolicyTrainer
from clearseek.train.state import latest_resume_point
from tests.engine.scripted import PlainVerifiers, ScriptedEngine, small_tokenizer
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import LATENT, tiny_model
from tests.train.small import CPU, rl_stage

RIGHT, WRONG, BROKEN = "so</think>{}", "so</think>-98765", "so</think>broken"


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture
def trainer_of(tmp_path, tokenizer):
    """A trainer of a stage; its samples come from a random model, whose thoughts never close."""
    opened = []

    def make(folder="run", verifiers=None, num_mtp_layers=0, dtype=torch.float32, model=None, **settings):
        path = tmp_path / folder
        tasks = {"tasks": ["arithmetic"], "levels": [1], "languages": ["en"]}
        stage = rl_stage(**{"problems": tasks, "max_completion_tokens": 12, "sequence_length": 96} | settings)
        files = Ledger(path / "ledger.jsonl"), Ledger(path / "samples.jsonl"), Timings(path / "timings.jsonl")
        opened.extend(files)
        recipe = Recipe(name="t", stages={"rl": stage})
        context = StageContext(
            recipe, "rl", path, *files, SilentProgress(), verifiers or PlainVerifiers(), CPU, dtype,
            compile=False, examine=lambda *_: {},
        )  # fmt: skip
        shape = LATENT | {"vocab_size": tokenizer.vocab_size, "num_mtp_layers": num_mtp_layers}
        return PolicyTrainer(context, stage, model or tiny_model(ModelConfig(**shape), std=0.1), tokenizer)

    yield make
    for file in opened:
        file.close()


def records(trainer):
    return [r for r in read(trainer.context.run_dir / "ledger.jsonl") if r["kind"] == "step"]


def script(trainer, plan):
    """Let every problem be answered by `plan(number of the problem, in the order it was first asked)`."""
    numbers: dict[tuple[int, ...], int] = {}
    answers = {}

    def answer(request, sample):
        number = numbers.setdefault(request.prompt, len(numbers))
        return plan(number)[sample].format(answers[request.prompt])

    engine = ScriptedEngine(trainer.tokenizer, answer)
    engine.load_weights = lambda model: None
    draw = trainer.source.draw

    def drawn(*arguments):
        problems = draw(*arguments)
        for problem in problems:
            prompt = tuple(trainer.tokenizer.encode_chat([{"role": "user", "content": problem.prompt}]))
            answers[prompt] = problem.answer
        return problems

    trainer.engine, trainer.source.draw = engine, drawn
    return engine


# A random model, rewarded for its language alone: everything real but the verifiers


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("loss", ["reinforce", "clip", "cispo", "gspo"])
def test_the_first_update_is_on_policy(trainer_of, temperature, loss):
    """T5, T6: sampler and trainer agree to 1e-5 in fp32, no ratio leaves 1, the policy is its reference."""
    trainer = trainer_of(
        profile="r1", policy_loss=loss, temperature=temperature, clip_low=1e-4, clip_high=1e-4, steps=1
    )
    trainer.run()
    (record,) = records(trainer)
    assert 0 < record["mismatch"] < 1e-5
    assert 0 <= record["mismatch_mean"] <= record["mismatch"]
    assert 0 < record["mismatch_tokens"] <= record["tokens"]
    assert record["clip_fraction"] == 0
    assert record["kl"] == pytest.approx(0, abs=1e-12)
    assert record["grad_norm"] > 0
    assert record["tokens"] == 2 * 4 * 12


@pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3 mtp"])
def test_with_kernels_no_bit_differs(trainer_of, tokenizer, name, temperature):
    """Sampled many at once behind shared blocks, scored packed behind a shared prompt: in every step the same bits."""
    few = {"num_experts_per_token": 2, "num_expert_groups": 4, "num_limited_groups": 2}
    changes = few if "deepseek" in name else {}
    model = lane_sized(name, vocab_size=tokenizer.vocab_size, max_position_embeddings=512, **changes)
    trainer = trainer_of(
        dtype=torch.bfloat16, model=model, temperature=temperature, steps=2, updates_per_batch=2,
        profile="r1", drop_zero_variance=False, max_completion_tokens=90, sequence_length=256,
    )  # fmt: skip
    trainer.run()
    first, second = records(trainer)
    assert min(first["tokens"], second["tokens"]) > 300
    assert [record["mismatch_tokens"] for record in (first, second)] == [0, 0]
    assert [record["mismatch"] for record in (first, second)] == [0, 0]
    assert second["grad_norm"] > 0


def test_samples_stop_where_the_model_was_published_to(trainer_of, tokenizer, monkeypatch):
    """Here at every token but the tokenizer's own end."""
    monkeypatch.setattr(tokenizer, "stop_ids", frozenset(range(tokenizer.vocab_size)) - {tokenizer.eos_id})
    trainer = trainer_of(profile="r1", steps=1)
    trainer.run()
    (record,) = records(trainer)
    assert record["completion_tokens"] < 2
    assert record["truncated"] == 0


def test_modules_that_predict_further_learn_from_groups_that_share_a_prompt(trainer_of):
    """Their loss is part of the step; what is said of the next token stays what the sampler said."""
    trainer = trainer_of(num_mtp_layers=1, mtp_loss_weight=0.3, profile="r1", steps=1)
    before = {name: tensor.clone() for name, tensor in trainer.model.mtp.state_dict().items()}
    trainer.run()
    (record,) = records(trainer)
    assert record["mismatch"] < 1e-5
    after = trainer.model.mtp.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_later_updates_of_a_batch_leave_the_policy_that_sampled(trainer_of):
    trainer = trainer_of(profile="r1", steps=1, updates_per_batch=3, clip_low=1e-4, clip_high=1e-4)
    trainer.run()
    (record,) = records(trainer)
    assert record["mismatch"] < 1e-5
    assert 0 < record["clip_fraction"] < 1
    assert record["kl"] > 0


def test_a_sampler_that_disagrees_ends_the_run(trainer_of):
    """Law 1."""
    trainer = trainer_of(profile="r1", max_mismatch=0.05, max_mean_mismatch=0.05)
    with torch.no_grad():
        trainer.engine.model.embedding.weight.mul_(1.5)
    with pytest.raises(RunError, match=r"stage rl, step 1: sampler and trainer differ by .*float32"):
        trainer.run()


def test_two_runs_are_the_same(trainer_of):
    """T20 for one stage."""
    trainers = [trainer_of(f"run{i}", profile="r1") for i in range(2)]
    for trainer in trainers:
        trainer.run()
    one, other = (t.context.run_dir.joinpath("ledger.jsonl").read_bytes() for t in trainers)
    assert one == other
    for name, tensor in trainers[0].model.state_dict().items():
        assert torch.equal(tensor, trainers[1].model.state_dict()[name])


@pytest.mark.parametrize("settings", [{"profile": "r1", "reference_refresh_steps": 2}, {"profile": "best"}])
def test_a_stage_goes_on_where_it_stopped(trainer_of, settings):
    """Law 3 for one stage: weights, optimiser, reference, pool of solved problems, and every record."""
    settings |= {"steps": 4, "checkpoint_every": 1, "language_consistency_weight": 1.0}
    straight = trainer_of("straight", **settings)
    straight.run()
    stopped = trainer_of("stopped", **settings)
    stopped.pool.retired.add("an earlier one")
    straight.pool.retired.add("an earlier one")
    save = stopped._save

    def stop_after(step):
        save(step)
        if step == 3:
            raise KeyboardInterrupt

    stopped._save = stop_after
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    for file in (stopped.context.ledger, stopped.context.samples, stopped.context.timings):
        file.close()
    resumed = trainer_of("stopped", **settings)
    resumed.run()
    assert resumed.pool == straight.pool
    assert resumed.totals == straight.totals
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    for name, tensor in straight.learner.optimizer.state().items():
        assert torch.equal(tensor, resumed.learner.optimizer.state()[name]), name
    fields = [{k: v for k, v in r.items() if k not in ("prev", "retired")} for r in records(straight)]
    assert fields == [{k: v for k, v in r.items() if k not in ("prev", "retired")} for r in records(resumed)]


# Scripted answers


def test_groups_are_kept_whole_and_silent_ones_dropped(trainer_of):
    """T8 and T9: one right answer among four keeps all four; all alike tells nothing, and is counted."""
    trainer = trainer_of(profile="best", problems_per_step=4, max_refill_rounds=0, retire_pass_rate=0.9)
    plans = [[RIGHT, WRONG, WRONG, WRONG], [WRONG] * 4, [RIGHT] * 4, [RIGHT, RIGHT, RIGHT, WRONG]]
    script(trainer, lambda number: plans[number])
    sampled = trainer.sample(0)
    kept, dropped = sampled.kept(), sampled.dropped()
    assert [[item.verdict.value for item in group.judged] for group in kept] == [
        ["correct", "wrong", "wrong", "wrong"], ["correct", "correct", "correct", "wrong"]
    ]  # fmt: skip
    assert [group.pass_rate for group in dropped] == [0, 1]
    numbers = trainer._describe(sampled)
    assert (numbers["groups"], numbers["dropped"], numbers["refilled"]) == (4, 2, 0)
    assert (numbers["groups_all_correct"], numbers["groups_all_wrong"]) == (1, 1)
    assert numbers["reward"] == 8 / 16
    assert numbers["retired"] == 1


def test_the_recipe_s_bound_on_the_cache_reaches_the_engine(trainer_of):
    trainer = trainer_of(profile="best")
    context = trainer.context
    context.recipe = context.recipe.model_copy(update={"cache_gib": 0.001})
    engine = context.open_sampler(trainer.model, trainer.tokenizer)
    assert engine.cache_limit.num_bytes == int(0.001 * 2**30)


@pytest.mark.parametrize("drawn_by", [((0, 0), (2, 1)), ((0, 1),)])
def test_a_batch_that_two_policies_have_drawn_is_refused(trainer_of, drawn_by):
    trainer = trainer_of(profile="best", problems_per_step=4, max_refill_rounds=0)
    engine = script(trainer, lambda number: [RIGHT, WRONG, WRONG, WRONG])
    answered = engine.generate

    def generate(requests):
        groups = answered(requests)
        groups[1][2].drawn_by = drawn_by
        return groups

    engine.generate = generate
    with pytest.raises(RunError, match=r"step 1: its completions were drawn by weights of versions 0, 1"):
        trainer.sample(0)


def test_dropped_groups_are_drawn_again_until_the_batch_is_full(trainer_of):
    trainer = trainer_of(profile="best", problems_per_step=4, max_refill_rounds=2)
    silent, telling = [WRONG] * 4, [RIGHT, WRONG, WRONG, WRONG]
    plans = [telling, silent, silent, telling, silent, telling, telling]
    engine = script(trainer, lambda number: plans[number])
    sampled = trainer.sample(0)
    kept, dropped = sampled.kept(), sampled.dropped()
    assert len(engine.requests) == 4 + 2 + 1
    assert (len(kept), len(dropped)) == (4, 3)
    assert len({group.problem.id for group in kept + dropped}) == 7
    assert trainer._describe(sampled)["refilled"] == 3


def test_refilling_ends(trainer_of):
    """T18: a model that solves nothing is not sampled for ever; the step changes nothing and says so."""
    trainer = trainer_of(profile="best", problems_per_step=2, max_refill_rounds=3, steps=1)
    engine = script(trainer, lambda number: [WRONG] * 4)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.run()
    assert len(engine.requests) == 2 * 4
    (record,) = records(trainer)
    assert (record["dropped"], record["tokens"], record["grad_norm"], record["reward"]) == (8, 0, 0, 0)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_stage_whose_problems_are_all_solved_ends(trainer_of, tmp_path):
    """It has done what it was asked to do; the model is kept and the ledger says why it ended."""
    path = tmp_path / "few.jsonl"
    rows = [{"prompt": f"{i} + {i}?", "answer": str(2 * i), "verifier": "number"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = {"path": str(path), "held_out_path": str(path)}
    trainer = trainer_of(
        problems_per_step=4,
        max_refill_rounds=1,
        steps=9,
        retire_pass_rate=0.7,
        problems=problems,
        max_mean_mismatch=99.0,
    )
    script(trainer, lambda number: [WRONG if number == 1 else RIGHT] + [RIGHT] * 3)
    trainer.run()
    (ended,) = (r for r in read(trainer.context.run_dir / "ledger.jsonl") if r["kind"] == "stopped_early")
    assert len(records(trainer)) == ended["step"] < 9
    assert len(trainer.pool.solved) == len(rows)


def test_solved_problems_are_kept_for_rejection_sampling(trainer_of):
    trainer = trainer_of(profile="best", problems_per_step=2, max_refill_rounds=0)
    script(trainer, lambda number: [WRONG if number else RIGHT] + [RIGHT] * 3)
    trainer.sample(0)
    assert len(trainer.pool.retired) == 1
    (solved,) = trainer.pool.solved
    assert solved["thought"] == "so"
    assert set(solved) == {"prompt", "thought", "answer"}


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_a_silent_group_pulls_nowhere(trainer_of, aggregation):
    """T8, r1's form: it stays in the batch and in its counts, and its gradient is exactly 0."""
    settings = {"profile": "r1", "kl_weight": 0.0, "language_consistency_weight": 0.0}
    trainer = trainer_of(**settings, aggregation=aggregation, problems_per_step=2, max_mismatch=99.0,
                         max_mean_mismatch=99.0, optimizer=Optimizer(weight_decay=0.0))  # fmt: skip
    script(trainer, lambda number: [WRONG] * 4 if number else [RIGHT] * 4)
    sampled = trainer.sample(0)
    kept, dropped = sampled.kept(), sampled.dropped()
    assert (len(kept), dropped) == (2, [])
    trainer.stage = trainer.learner.stage = trainer.stage.model_copy(update={"balance_loss_weight": 0.0})
    numbers = trainer.update(0, kept)
    assert numbers["grad_norm"] == 0
    assert numbers["tokens"] > 0


def test_a_batch_of_broken_verifiers_changes_nothing(trainer_of):
    """Law 5: no reward is not a reward of 0."""
    trainer = trainer_of(
        profile="r1", verifiers=PlainVerifiers(errors=["broken"]), steps=1, problems_per_step=2
    )
    script(trainer, lambda number: [BROKEN] * 4)
    trainer.run()
    (record,) = records(trainer)
    assert (record["error"], record["tokens"], record["grad_norm"]) == (8, 0, 0)
    assert record["reward"] == "nan"


def test_a_broken_verdict_is_left_out_of_its_group(trainer_of):
    settings = {
        "problems_per_step": 1,
        "max_refill_rounds": 0,
        "max_mismatch": 99.0,
        "max_mean_mismatch": 99.0,
    }
    trainer = trainer_of(verifiers=PlainVerifiers(errors=["broken"]), **settings)
    script(trainer, lambda number: [RIGHT, BROKEN, WRONG, RIGHT])
    kept = trainer.sample(0).kept()
    assert [item.verdict.value for item in kept[0].judged] == ["correct", "error", "wrong", "correct"]
    numbers = trainer.update(0, kept)
    assert numbers["tokens"] == sum(
        len(item.completion.tokens) for item in kept[0].judged if item.verdict != "error"
    )


def test_every_sample_of_a_stage_has_a_stream_of_its_own(trainer_of):
    """Law 4: by step, refill round and problem."""
    trainer = trainer_of(profile="best", problems_per_step=2, max_refill_rounds=1)
    engine = script(trainer, lambda number: [WRONG] * 4)
    for step in range(2):
        trainer.sample(step)
    keys = [request.key for request in engine.requests]
    assert len(set(keys)) == len(keys) == 8
    again = trainer_of("again", profile="best", problems_per_step=2, max_refill_rounds=1)
    other = script(again, lambda number: [WRONG] * 4)
    again.sample(1)
    assert [request.key for request in other.requests] == keys[4:]


# The supervised term


def test_the_supervised_term_is_weighted_cross_entropy(trainer_of):
    data = [{"problems": {"tasks": ["arithmetic"], "levels": [1]}, "count": 30}]
    settings = {
        "profile": "r1",
        "kl_weight": 0.0,
        "steps": 1,
        "max_mismatch": 99.0,
        "max_mean_mismatch": 99.0,
    }
    losses = []
    for weight in (0.25, 0.5):
        trainer = trainer_of(f"w{weight}", **settings, sft_weight=weight, sft_data=data)
        script(trainer, lambda number: [WRONG] * 4)  # no policy loss: every reward is the same
        trainer.run()
        losses.append(records(trainer)[0]["loss"])
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)
    assert losses[0] / 0.25 == pytest.approx(np.log(320), rel=0.25)


def test_a_stage_begins_by_saying_whether_it_is_exact(trainer_of, monkeypatch):
    trainer, said = trainer_of(profile="best", steps=1), []
    monkeypatch.setattr(trainer.context.progress, "note", said.append)
    trainer.run()
    assert said[0].startswith("rl: not exact: ")
    assert said[0].endswith("they compute in bfloat16 on a CPU, not in float32 on cpu")
    assert trainer_of("no", exact=False).is_exact is False
    assert trainer.is_exact is True


def test_a_resume_point_holds_what_a_stage_remembers(trainer_of):
    trainer = trainer_of(profile="best", steps=3, checkpoint_every=2, language_consistency_weight=1.0)
    trainer.pool.retired |= {"b", "a"}
    trainer.pool.solved.append({"prompt": "p", "thought": "t", "answer": "a"})
    trainer.run()
    point = latest_resume_point(trainer.context.partial_dir)
    assert point.step == 2
    stored = json.loads((point.directory / "state.json").read_text())
    assert stored["extra"] == {
        "retired": sorted(trainer.pool.retired), "solved": trainer.pool.solved
    }  # fmt: skip
