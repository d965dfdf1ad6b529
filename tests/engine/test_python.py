"""`clearseek.load`, `.logits`, `.generate`, `clearseek.save`: from Python, as the manual says it."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import clearseek
from clearseek.config.errors import InputError, InputWarning
from clearseek.engine.session import open_session
from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.peft_format import write_adapter
from clearseek.text.tokenizer import Tokenizer
from tests.engine.published_base import PHRASES, QUESTION, save
from tests.model.adapted import adapter_over
from tests.model.every_family import every_family
from tests.model.tiny import some_tokens

FAMILIES = list(every_family())


# Opening


def test_importing_is_instant_and_needs_no_torch():
    probe = "import clearseek, sys; assert 'torch' not in sys.modules; assert 'load' in dir(clearseek)"
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=20)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = clearseek.lode


def in_place_of(there, other):
    """`other`, its weights as far behind a line of the cache as those of `there`."""
    moved = copy.deepcopy(other)
    for to, place in zip(moved.parameters(), there.parameters(), strict=True):
        room = torch.empty(to.numel() + 32, dtype=to.dtype)
        first = (place.data_ptr() - room.data_ptr()) // to.element_size() % (64 // to.element_size())
        to.data = room[first : first + to.numel()].view_as(to).copy_(to.data)
        assert to.data_ptr() % 64 == place.data_ptr() % 64
    return moved


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_decoder_s_and_differentiable(tmp_path, tokenizer, family):
    saved = save(tmp_path, tokenizer, family)
    model = clearseek.load(str(tmp_path))
    decoder = in_place_of(model.decoder, saved)  # on some processors sums depend on where a weight begins
    assert model.config.family == family
    assert model.num_parameters == sum(p.numel() for p in decoder.parameters())
    tokens = some_tokens(model.config, rows=2, length=7)
    scores = model.logits(tokens)
    assert (scores.shape, scores.dtype) == ((2, 7, model.config.vocab_size), torch.float32)
    expected = decoder.logits(decoder(tokens, torch.ones_like(tokens), depth=0).states)
    assert torch.equal(scores, expected)
    assert torch.equal(model.logits(tokens.tolist()), expected)
    for logits in (scores, expected):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradients = {name: p.grad for name, p in model.decoder.named_parameters() if p.grad is not None}
    assert len(gradients) > 10
    assert all(torch.equal(gradients[n], p.grad) for n, p in decoder.named_parameters() if p.grad is not None)
    with torch.no_grad():
        assert not model.logits(tokens).requires_grad


def test_bfloat16_weights_and_activations(base):
    model = clearseek.load(base, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.decoder.parameters()} == {torch.bfloat16}
    tokens = some_tokens(model.config, rows=1, length=9)
    wide = clearseek.load(base).logits(tokens)
    assert model.logits(tokens).dtype == torch.float32
    assert F.cosine_similarity(model.logits(tokens).flatten(), wide.flatten(), dim=0) > 0.99
    assert model.generate(QUESTION, max_tokens=4).tokens


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "int3"}, "'int3' is no weight format; there are float32, bfloat16, int8"),
        ({"format": "int4,nose=int8"}, "no part of this model is called 'nose'; there are head, attention"),
        ({"format": "int4"}, "this model's weights can't be kept in int4 here: "),
        ({"dtype": "fp16"}, "dtype 'fp16' is not known; known ones: float32, bfloat16"),
        ({"device": "gpu"}, "device 'gpu' is not known; give auto, cpu, cuda, cuda:N or mps"),
        ({"adapter": "nowhere"}, "no such file; give the directory of an adapter in PEFT's format"),
        ({"path": "nowhere"}, "nowhere: no such directory"),
    ],
)
def test_names_that_are_not_known_are_refused(base, settings, message):
    with pytest.raises(InputError, match=message):
        clearseek.load(**{"path": base} | settings)


def test_a_tokenizer_beyond_the_embedding_is_refused(base, tmp_path):
    Tokenizer.train(PHRASES * 3, 500).save(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    grown = json.loads((tmp_path / "tokenizer.json").read_text())
    size = len(grown["model"]["vocab"])
    grown["model"]["vocab"] |= {f"extra{n}": size + n for n in range(200)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(grown))
    with pytest.raises(InputError, match="the tokenizer has"):
        clearseek.load(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, 2, 3], r"integers \[B, T\], got \[3\] of int64"),
        ([[0.5]], r"integers \[B, T\], got \[1, 1\] of float32"),
        ([[]], r"integers \[B, T\]"),
        ([[100_000]], r"from 0 to \d+, got 100000 to 100000"),
        ([[-1]], "from 0 to"),
        ([[3] * 129], "129 tokens are more than the model's context of 128"),
    ],
)
def test_token_ids_that_are_none_are_refused(model, tokens, message):
    with pytest.raises(InputError, match=message):
        model.logits(tokens)


# Answering


def test_greedy_answers_are_the_likeliest_tokens(model):
    """Token by token from `logits`, in one batch of unequal prompts."""
    prompts = [model.tokenizer.encode("12 + 5 ="), model.tokenizer.encode("먼저")]
    answers = model.generate(prompts, max_tokens=8, temperature=0)
    for prompt, answer in zip(prompts, answers, strict=True):
        known = list(prompt)
        for token, log_prob in zip(answer.tokens, answer.log_probs, strict=True):
            with torch.no_grad():
                expected = model.logits([known])[0, -1].log_softmax(-1)
            assert token == int(expected.argmax())
            assert log_prob == pytest.approx(float(expected.max()), abs=1e-4)
            known.append(token)
        assert answer.text == model.tokenizer.decode(answer.tokens).removesuffix(
            model.tokenizer.chat.eos_token
        )
        assert (answer.thought, answer.answer, str(answer)) == ("", answer.text, answer.text)


def test_an_answer_is_the_command_line_s(base, model, monkeypatch):
    """The same seed, prompt and dtype: what `clearseek generate` says."""
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    session = open_session(str(base), "cpu")
    parts = {"thought": "", "answer": ""}
    for kind, piece in session.stream([{"role": "user", "content": QUESTION}], max_tokens=20, seed=3):
        parts[kind] += piece
    answer = model.generate(QUESTION, max_tokens=20, seed=3)
    assert answer.thought == parts["thought"]
    assert (answer.answer or "") == parts["answer"].strip()
    assert len(answer.tokens) == session.completion_tokens


def test_an_answer_does_not_depend_on_its_neighbours(model):
    alone = model.generate(QUESTION, max_tokens=12, seed=5)
    among = model.generate(["먼저?", QUESTION, "首先?", QUESTION], max_tokens=12, seed=5)
    assert among[1].tokens == among[3].tokens == alone.tokens
    assert model.generate(QUESTION, max_tokens=12, seed=6).tokens != alone.tokens
    messages = [{"role": "user", "content": QUESTION}]
    assert model.generate(messages, max_tokens=12, seed=5) == alone
    assert model.generate([messages], max_tokens=12, seed=5) == [alone]
    assert model.generate([]) == []


def test_speculation_changes_no_answer(model):
    question = "What is 3 + 4? What is 3 + 4?"
    plain = model.generate(question, max_tokens=20, seed=2)
    guessed = model.generate(question, max_tokens=20, seed=2, speculation="ngram:3")
    assert (guessed.text, guessed.tokens) == (plain.text, plain.tokens)
    with pytest.raises(InputError, match="no multi-token module"):
        model.generate(question, max_tokens=20, speculation="mtp")


def test_tokens_may_be_a_tensor(model):
    ids = model.tokenizer.encode("12 + 5 =")
    expected = model.generate(ids, max_tokens=4)
    assert model.generate(torch.tensor(ids), max_tokens=4) == expected
    both = model.generate(torch.tensor([ids, ids]), max_tokens=4)
    assert [answer.tokens for answer in both] == [expected.tokens] * 2


def test_changed_weights_answer_at_once(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    model = clearseek.load(tmp_path)
    before = model.generate(QUESTION, max_tokens=6, temperature=0)
    assert model.generate(QUESTION, max_tokens=6, temperature=0) == before
    with torch.no_grad():
        model.decoder.layers[0].attention.out.weight.neg_()
    after = model.generate(QUESTION, max_tokens=6, temperature=0)
    assert after.log_probs != before.log_probs


def test_every_token_that_ends_an_answer_does(tmp_path, tokenizer):
    """The publisher's list in generation_config.json, not the tokenizer's alone."""
    save(tmp_path, tokenizer)
    first = clearseek.load(tmp_path).generate(QUESTION, max_tokens=8, temperature=0).tokens
    path = tmp_path / "generation_config.json"
    ends = [tokenizer.eos_id, first[2]]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ends}))
    answer = clearseek.load(tmp_path).generate(QUESTION, max_tokens=8, temperature=0)
    assert answer.tokens == first[: first.index(first[2]) + 1]
    assert len(answer.log_probs) == len(answer.tokens)
    assert answer.finish_reason == "stop"
    assert answer.text == tokenizer.decode(answer.tokens[:-1])


def test_the_context_s_end_comes_first_where_it_is_nearer(model):
    ids = [5] * 120
    answer = model.generate(ids, max_tokens=100, temperature=1.0, top_p=1.0)
    assert len(answer.tokens) <= 8
    with pytest.raises(InputError, match="a prompt of 128 tokens fills the model's context of 128 tokens"):
        model.generate([5] * 128)


def test_a_stop_string_ends_an_answer_and_is_cut_from_it(model):
    whole = model.generate(QUESTION, max_tokens=12, temperature=0)
    stop = whole.text[2:4]
    answer = model.generate(QUESTION, max_tokens=12, temperature=0, stop=(stop,))
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert answer.finish_reason == "stop"
    assert answer.tokens == whole.tokens[: len(answer.tokens)]


def test_what_is_asked_of_the_likeliest_and_of_the_prompt_is_reported(model):
    ids = [5, 6, 7, 8]
    answer = model.generate(ids, max_tokens=3, top_log_probs=2, prompt_log_probs=1)
    assert [len(beside.tokens) for beside in answer.alternatives] == [2] * len(answer.tokens)
    wanted = model.logits([ids]).log_softmax(-1)[0, range(3), ids[1:]]
    assert answer.prompt_log_probs[0] is None
    torch.testing.assert_close(torch.tensor(answer.prompt_log_probs[1:]), wanted, rtol=0, atol=1e-5)
    assert [beside and len(beside.tokens) for beside in answer.prompt_alternatives] == [None, 1, 1, 1]


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        (QUESTION, {"temprature": 1}, "generate has no setting 'temprature'; did you mean 'temperature'?"),
        (QUESTION, {"num_samples": 2}, "generate has no setting 'num_samples'"),
        (QUESTION, {"n": 0}, r"num_samples \(n\) is 0"),
        (QUESTION, {"processed_log_probs": 1}, "processed_log_probs is 1; it has to be True or False"),
        (QUESTION, {"max_tokens": 0}, "max_tokens is 0; it has to be a whole number of at least 1"),
        (QUESTION, {"temperature": -1}, "temperature is -1"),
        (QUESTION, {"temperature": float("nan")}, "temperature is nan"),
        (QUESTION, {"top_p": 0}, "top_p is 0"),
        (QUESTION, {"top_k": -1}, "top_k is -1"),
        ([[]], {}, "a prompt is empty"),
        ([[1, 2], []], {}, "a prompt is empty"),
        ([7_000_000], {}, "token ids have to be from 0 to"),
        (3, {}, "prompts are a text, messages, token ids, or a list of them; got int"),
    ],
)
def test_prompts_and_settings_out_of_range_are_refused(model, prompts, settings, message):
    with pytest.raises(InputError, match=message):
        model.generate(prompts, **settings)


def test_of_several_answers_one_that_fails_says_so_and_the_others_go_on(tmp_path, tokenizer):
    model = save(tmp_path, tokenizer, "llama")
    wanted = clearseek.load(tmp_path).generate([[5, 6, 7], [8, 9]], max_tokens=9)
    with torch.no_grad():
        model.embedding.weight[10] = torch.nan
    save_model(model, tmp_path, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    broken = clearseek.load(tmp_path)
    answers = broken.generate([[5, 6, 7], [10, 11], [8, 9]], max_tokens=9)
    assert [answer.finish_reason for answer in answers][1] == "error"
    assert answers[1].error == "the model's scores after 2 tokens are no numbers"
    assert [answers[0].tokens, answers[2].tokens] == [answer.tokens for answer in wanted]
    with pytest.raises(InputError, match="the model's scores after 2 tokens are no numbers"):
        broken.generate([10, 11])


# Saving


def test_the_manual_s_example_runs(base, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)\n```", text, flags=re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "library").symlink_to(base)
    monkeypatch.chdir(tmp_path)
    exec(compile(example[1].replace("temperature=0", "temperature=0, max_tokens=8"), "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out
    assert load_model(tmp_path / "library-model").config.family == "qwen3"


def test_what_is_saved_is_the_base_with_its_files_as_they_were(base, tokenizer, tmp_path):
    source = tmp_path / "base"
    save(source, tokenizer)
    kept = {
        "generation_config.json": json.dumps({"eos_token_id": [1, 7], "temperature": 0.6}),
        "special_tokens_map.json": json.dumps({"eos_token": tokenizer.chat.eos_token}),
        "tokenizer_config.json": (source / "tokenizer_config.json").read_text() + "\n\n",
    }
    for name, text in kept.items():
        (source / name).write_text(text)
    model = clearseek.load(source)
    clearseek.save(model, tmp_path / "new")
    for name, text in kept.items():
        assert (tmp_path / "new" / name).read_text() == text
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    found, expected = load_model(tmp_path / "new").state_dict(), model.decoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_model_that_transformers_lacks_keeps_its_code_and_says_so(tokenizer, tmp_path):
    source = tmp_path / "base"
    save(source, tokenizer, "mimo")
    config = json.loads((source / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_mimo.MiMoConfig"}
    (source / "config.json").write_text(json.dumps(config))
    (source / "configuration_mimo.py").write_text("raise SystemExit('run')\n")
    with pytest.warns(
        InputWarning, match="transformers has no MiMoForCausalLM: it opens this with trust_remote"
    ):
        clearseek.save(clearseek.load(source), tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text()) == config
    code = (tmp_path / "new" / "configuration_mimo.py").read_text()
    assert code == (source / "configuration_mimo.py").read_text()


def test_a_template_within_the_config_stays_there(tokenizer, tmp_path):
    source = tmp_path / "base"
    save(source, tokenizer)
    config = json.loads((source / "tokenizer_config.json").read_text())
    templates = [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "x"}]
    (source / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": templates}))
    (source / "chat_template.jinja").unlink()
    clearseek.save(clearseek.load(source), tmp_path / "new")
    assert not (tmp_path / "new" / "chat_template.jinja").exists()
    assert json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())["chat_template"] == templates


def test_a_base_without_a_template_gets_the_one_it_was_trained_with(tokenizer, tmp_path):
    source = tmp_path / "base"
    save(source, tokenizer)
    (source / "chat_template.jinja").unlink()
    model = clearseek.load(source)
    clearseek.save(model, tmp_path / "new")
    assert (tmp_path / "new" / "chat_template.jinja").read_text() == model.tokenizer.chat.source


def test_saving_in_another_dtype(model, tmp_path):
    clearseek.save(model, tmp_path / "new", dtype="bfloat16")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    found = load_model(tmp_path / "new").state_dict()
    assert torch.equal(found["embedding.weight"], model.decoder.embedding.weight.bfloat16().float())
    with pytest.raises(InputError, match="dtype 'half' is not known"):
        clearseek.save(model, tmp_path / "other", dtype="half")


def test_a_directory_that_holds_something_is_not_replaced(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already; give the name of a new directory"):
        clearseek.save(model, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.filterwarnings("ignore:.*transformers has no")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_merged_as_the_model_is_opened_and_saved(tmp_path, tokenizer, family):
    save(tmp_path / "base", tokenizer, family)
    plain = clearseek.load(tmp_path / "base")
    adapter = adapter_over(plain.config, ["all-linear"])
    write_adapter(adapter, tmp_path / "adapter", "base")
    model = clearseek.load(tmp_path / "base", adapter=tmp_path / "adapter")
    tokens = some_tokens(model.config, rows=1, length=9)
    with torch.no_grad():
        merged = in_place_of(model.decoder, adapter.merged_model(plain.decoder))
        expected = merged.logits(merged(tokens, torch.ones_like(tokens), depth=0).states)
        assert torch.equal(model.logits(tokens), expected)
        assert (expected - plain.logits(tokens)).abs().max() > 0.01
        clearseek.save(model, tmp_path / "merged")
        again = clearseek.load(tmp_path / "merged")
        merged = in_place_of(again.decoder, merged)
        expected = merged.logits(merged(tokens, torch.ones_like(tokens), depth=0).states)
        assert torch.equal(again.logits(tokens), expected)
