"""A whole run in which an adapter learns in every kind of stage that trains."""

from tests.recipe.tiny_run import RECIPE

_BEGIN = RECIPE.partition("[stages.pretrain]")[0]
_DATA = '[{ problems = { tasks = ["digits"], levels = [1] }, count = 20 }]'
_ROWS = f"""
data = {_DATA}
batch_rows = 4
micro_batch_rows = 2
sequence_length = 80
checkpoint_every = 1
evaluate = false
"""

ADAPTED = f"""{_BEGIN}
[stages.pretrain]
kind = "pretrain"
start = "teacher"
tokens = 640
lora = {{ rank = 2, targets = ["o_proj", "kv_b_proj"] }}
{_ROWS}

[stages.sft]
kind = "sft"
start = "pretrain"
epochs = 0.6
evaluate_every = 2
lora = {{ rank = 3, alpha = 9.0 }}
{_ROWS}

[stages.rl]
kind = "rl"
start = "sft"
profile = "r1"
problems = {{ tasks = ["digits"], levels = [1] }}
steps = 3
problems_per_step = 2
group_size = 3
max_completion_tokens = 6
micro_batch_rows = 4
updates_per_batch = 2
reference_refresh_steps = 2
sequence_length = 96
checkpoint_every = 1
max_mismatch = 1e-3
sft_weight = 0.1
sft_data = {_DATA}
lora = {{ rank = 4, rslora = true, targets = ["all-linear"] }}

[stages.distill]
kind = "distill"
start = "rl"
epochs = 0.4
lora = {{ rank = 2, targets = ["experts.1.down_proj", "q_a_proj"] }}
{_ROWS}
"""
STAGES = ("pretrain", "sft", "rl", "distill")
