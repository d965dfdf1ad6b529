"""Every stage on a tiny base of a family: it runs, and what it leaves is published as the base was."""

import json

from clearseek.ledger.log import read
from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.peft_format import read_adapter
from clearseek.recipe.run import run_recipe
from clearseek.text.tokenizer import Tokenizer
from tests.model.every_family import small
from tests.model.tiny import tiny_model
from tests.recipe.tiny_run import write_recipe

TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
LINES = [{"prompt": f"{n} + 1?", "answer": ".*", "verifier": "regex"} for n in range(60)]
TEXTS = [line["prompt"] for line in LINES] * 3
KEPT = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "modeling_published.py",
)

RECIPE = """
name = "family"
dtype = "float32"
compile = false

[evaluation]
count = 2
max_completion_tokens = 4
problems = {{ path = "{problems}" }}

[stages.before]
kind = "eval"
start = "{base}"

[stages.sft]
kind = "sft"
start = "{base}"
data = [{{ path = "{examples}" }}]
epochs = 0.1
batch_rows = 2
sequence_length = 32
{lora}

[stages.rl]
kind = "rl"
start = "sft"
problems = {{ path = "{problems}" }}
steps = 1
problems_per_step = 2
group_size = 2
max_completion_tokens = 4
sequence_length = 48
max_mismatch = 1e-3
drop_zero_variance = false
{lora}

[stages.collect]
kind = "reject"
start = "{base}"
problems = {{ path = "{problems}" }}
count = 40
samples = 12
max_completion_tokens = 8

[stages.distill]
kind = "distill"
start = "rl"
data = [{{ stage = "collect" }}]
epochs = 0.1
batch_rows = 2
sequence_length = 32
{lora}
"""


LORA = {"full": "", "lora": 'lora = { rank = 2, targets = ["all-linear"] }'}


def publish(directory, tokenizer, family):
    """A base of a family, with files about it that its publisher wrote his own way."""
    model = tiny_model(small(family, vocab_size=tokenizer.vocab_size, max_position_embeddings=256), std=0.02)
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_text(json.dumps(json.loads((directory / name).read_text())))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "special_tokens_map.json").write_text(json.dumps({"eos_token": tokenizer.chat.eos_token}))
    generation = {"eos_token_id": [tokenizer.eos_id, 7], "temperature": 0.6, "top_p": 0.95, "do_sample": True}
    (directory / "generation_config.json").write_text(json.dumps(generation))
    (directory / "modeling_published.py").write_text("raise SystemExit('run')\n")
    auto_map = {"AutoModelForCausalLM": "modeling_published.Published"}
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
    return directory


def check_every_stage(folder, family, lora):
    """Evaluation, fine-tuning, reinforcement learning, rejection sampling and distillation, one after the other."""
    tokenizer = Tokenizer.train(TEXTS, 300)
    base = publish(folder / "base", tokenizer, family)
    problems, examples = folder / "problems.jsonl", folder / "examples.jsonl"
    problems.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    lines = [{"prompt": line["prompt"], "thought": "so", "answer": "1"} for line in LINES]
    examples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = write_recipe(folder, RECIPE.format(base=base, problems=problems, examples=examples, lora=lora))
    run = run_recipe(recipe, out=folder / "run", device="cpu").run_dir
    finished = [
        record["stage"] for record in read(run / "ledger.jsonl") if record["kind"] == "stage_finished"
    ]
    assert finished == ["before", "sft", "rl", "collect", "distill"]
    published = json.loads((base / "config.json").read_text())
    for stage in ("sft", "rl", "distill"):
        left = run / "checkpoints" / stage
        assert [n for n in KEPT if (left / n).read_bytes() != (base / n).read_bytes()] == []
        assert json.loads((left / "config.json").read_text()) == published
        model = load_model(left)
        assert (left / "adapter").is_dir() == bool(lora)
        if lora:
            assert read_adapter(left / "adapter", model.config).factors
