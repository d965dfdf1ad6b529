"""What a family is: how one published checkpoint format maps onto the one decoder, both ways.

A family is a table in a file of its own, named `FAMILY`; files beside this one are found by themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig

Published = Mapping[str, Any]
Keys = dict[str, str | tuple[str, ...]]
Reader = Callable[[Published, Path], dict[str, Any]]
Writer = Callable[[ModelConfig], dict[str, Any]]

# our name → the published one, in every family
COMMON: Keys = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "tie_word_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
GROUPED: Keys = COMMON | {
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}
LATENT: Keys = COMMON | {
    name: name
    for name in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
}
# what early or hand-written files leave out, and then means what our default says
OPTIONAL = frozenset(
    {
        "rms_norm_eps",
        "tie_word_embeddings",
        "initializer_range",
        "num_key_value_heads",
        "head_dim",
        "q_lora_rank",
    }
)
# the only setting we have of each switch; absent or null means the same
SWITCHES: dict[str, Any] = {"hidden_act": "silu", "attention_dropout": 0.0}


@dataclass(frozen=True)
class Family:
    """One published format.

    `keys` are our config's fields and what a config.json calls them (the first of several is written);
    `implied` are fields that every checkpoint of the family has set so; `defaults` is what an absent published
    key means; `switches` are published keys with the only setting that we have, refused otherwise.
    `names` renames tensors: our canonical part of a name (DeepSeek's and Llama's) → theirs. `unread` are patterns (`*`
    is anything) of tensors that are left where they are, which loading says. `read` and `write` add what no table
    can say.
    """

    name: str
    architecture: str
    keys: Keys
    implied: Mapping[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    switches: Mapping[str, Any] = field(default_factory=lambda: SWITCHES)
    names: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    stacks_experts: bool = False  # all experts of a layer are one tensor, as in ours
    rows: tuple[str, ...] = ()  # names' ends of our vectors that are published as matrices of one row
    read: Reader = lambda published, path: {}
    write: Writer = lambda config: {}
    more: frozenset[str] = frozenset()  # fields that `read` sets and `write` writes
    scalings: frozenset[str] = frozenset({"yarn", "llama3", "linear"})
    default_theta: float = 10_000.0
    in_transformers: bool = True  # else it needs the code that its models are published with

    @property
    def known(self) -> frozenset[str]:
        """The fields that a config of this family may set."""
        always = {"family", "rope_theta", "rope_scaling"}
        return frozenset(always | self.keys.keys() | self.implied.keys() | self.more)
