"""Rollouts come back from their file as they were; a file that is none is one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import RunError
from clearseek.engine.request import Completion
from clearseek.engine.rollout import Group, Judged
from clearseek.model.stored import load_tensors, save_tensors
from clearseek.tasks.problem import Problem
from clearseek.tasks.verify import Verdict
from clearseek.train.rollouts import Rollout, read_rollout, write_rollout
from tests.engine.scripted import small_tokenizer

TOKENIZER = small_tokenizer()
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=6)
FP32 = st.floats(-30, 0, width=32)


@st.composite
def judged(draw):
    tokens = draw(IDS)
    scores = draw(st.lists(FP32, min_size=len(tokens), max_size=len(tokens)))
    finish = draw(st.sampled_from(["stop", "length", "error"]))
    completion = Completion(tokens, scores, finish, draw(st.floats(0, 9)))
    thought, answer = TOKENIZER.chat.split_completion(TOKENIZER.decode(completion.said))
    return Judged(
        completion, thought, answer, draw(st.sampled_from(list(Verdict))), draw(st.none() | st.floats(0, 1))
    )


GROUPS = st.builds(
    Group,
    st.builds(
        Problem, st.text(max_size=3), st.just("ko"), st.integers(0, 3), st.text(), st.text(), st.just("exact")
    ),
    IDS.map(tuple),
    st.lists(judged(), max_size=3).map(tuple),
)


@settings(max_examples=50)
@given(st.lists(st.tuples(GROUPS, st.booleans()), max_size=4))
def test_a_rollout_comes_back_as_it_was(tmp_path_factory, some):
    path = tmp_path_factory.mktemp("rollouts") / "rl" / "step-000001.safetensors"
    rollout = Rollout([group for group, _ in some], [learnt for _, learnt in some])
    digest = write_rollout(path, rollout)
    assert read_rollout(path, TOKENIZER) == rollout
    assert write_rollout(path, rollout) == digest


def test_a_file_that_is_no_rollout_is_refused(tmp_path):
    path = tmp_path / "step-000001.safetensors"
    completion = Completion([5, 6], [-0.5, -1.5], "length")
    group = Group(
        Problem("f", "en", 1, "p", "a", "exact"), (3,), (Judged(completion, "", None, Verdict.wrong, None),)
    )
    write_rollout(path, Rollout([group], [True]))
    tensors, metadata = load_tensors(path)
    for name in tensors:
        save_tensors(path, {key: value for key, value in tensors.items() if key != name}, metadata)
        with pytest.raises(RunError, match="holds no rollout of this clearseek"):
            read_rollout(path, TOKENIZER)
    save_tensors(path, tensors, {"problems": "[{}]"})
    with pytest.raises(RunError, match="holds no rollout of this clearseek"):
        read_rollout(path, TOKENIZER)
