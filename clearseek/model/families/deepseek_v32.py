"""DeepSeek-V3.2: V3 with a lightning indexer in every layer, which chooses what a token sees."""

from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families import deepseek_v3 as v3
from clearseek.model.families.family import LATENT, SWITCHES, Family, Published
from clearseek.model.families.published_config import dense_from_types, mlp_layer_types

_INDEXER = {
    "index_topk": "index_topk",
    "index_num_heads": "index_n_heads",
    "index_head_dim": "index_head_dim",
}


def read(published: Published, path: Path) -> dict[str, Any]:
    """Dense layers as a list, which newer files give, or as a number."""
    return v3.read(published, path) | (dense_from_types(published, path) or {})


def write(config: ModelConfig) -> dict[str, Any]:
    """Both ways of saying which layers are dense."""
    return v3.write(config) | {"mlp_layer_types": mlp_layer_types(config)}


FAMILY = Family(
    name="deepseek_v32",
    architecture="DeepseekV32ForCausalLM",
    keys=LATENT | v3.BIASES | v3.EXPERTS | _INDEXER | {"num_mtp_layers": "num_nextn_predict_layers"},
    implied={"rotates_pairs": True},
    defaults=v3.FAMILY.defaults | {"first_k_dense_replace": 3},
    switches=SWITCHES | v3.ROUTER | {"rope_interleave": True},
    read=read,
    write=write,
    more=frozenset({"dense_layers"}),
)
