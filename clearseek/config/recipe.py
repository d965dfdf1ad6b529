"""The typed recipe: what stages there are, what each may be told, and how they refer to one another."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clearseek.config.engine import EngineChoice
from clearseek.config.lora import Lora
from clearseek.config.model import NewModel, Table
from clearseek.config.release import Release
from clearseek.config.sources import LANGUAGES as LANGUAGES  # part of the recipe, in a file of their own
from clearseek.config.sources import DataSource as DataSource
from clearseek.config.sources import Filters as Filters
from clearseek.config.sources import Language as Language
from clearseek.config.sources import Problems as Problems
from clearseek.config.sources import SpdxLicence


class Optimizer(Table):
    """Muon for the matrices of the layers and AdamW for the rest, or AdamW for everything."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0, description="of AdamW")
    muon_learning_rate: float = Field(default=0.02, gt=0)
    momentum: float = Field(default=0.95, ge=0, lt=1, description="of Muon")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), strict=False)  # a list in TOML
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0, description="largest global norm of the gradient")


class Schedule(Table):
    """The learning rate over a stage, as a share of its peak."""

    kind: Literal["constant", "cosine", "wsd"] = "wsd"
    warmup: float = Field(default=0.02, ge=0, lt=1, description="share of the steps that rise to the peak")
    decay: float = Field(default=0.5, ge=0, le=1, description="share of the steps that fall (wsd)")
    final: float = Field(default=0.0, ge=0, le=1, description="what is left at the end")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup ({self.warmup}) and decay ({self.decay}) are more than the whole stage")
        return self


class Evaluation(Table):
    """How a model is examined on held-out problems, and how much of its answers is kept to read."""

    problems: Problems = Problems()
    count: int = Field(default=300, gt=0)
    samples: int = Field(default=1, gt=0, description="completions per problem")
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_completion_tokens: int = Field(default=96, gt=0)
    probes: int = Field(default=6, ge=0, description="problems whose answers are kept at every evaluation")


class StageBase(Table):
    """What every stage has: where its weights start from, and what samples its completions."""

    kind: str
    start: str = Field(
        description="a name in [models] (random weights), an earlier stage, or a model directory"
    )
    engine: EngineChoice = Field(
        default=None, description='"vllm", or a table with its url; default: our own, in this process'
    )


class TokenizerStage(Table):
    """Train a byte-level BPE tokenizer on documents."""

    kind: Literal["tokenizer"]
    vocab_size: int = Field(ge=300, le=262_144)
    data: list[DataSource] = Field(min_length=1)


class TrainStage(StageBase):
    """What all gradient stages share."""

    tokenizer: str | None = Field(
        default=None, description="a tokenizer stage or directory; default: the start's own"
    )
    sequence_length: int = Field(default=128, ge=8)
    micro_batch_rows: int = Field(default=32, ge=1, description="rows of one forward pass on one process")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    lora: Lora | None = Field(default=None, description="train a low-rank adapter; default: every weight")
    mtp_loss_weight: float = Field(default=0.0, ge=0, description="λ of multi-token prediction")
    mtp_every: int = Field(
        default=1, ge=1, description="train multi-token prediction at every N-th step only"
    )
    balance_loss_weight: float = Field(default=1e-4, ge=0, description="α of the sequence-wise balance loss")
    bias_update_rate: float = Field(default=1e-3, ge=0, description="γ of the router's selection bias")
    checkpoint_every: int = Field(default=100, ge=1, description="steps between resume points")
    evaluate: bool = True
    evaluate_every: int = Field(
        default=0, ge=0, description="steps between evaluations on the way; 0: only at the end"
    )

    @model_validator(mode="before")
    @classmethod
    def _routers_stay(cls, values: Any) -> Any:
        """An adapter belongs to the base as it is: not even the routers' selection bias moves."""
        if isinstance(values, dict) and values.get("lora") is not None:
            return {"bias_update_rate": 0.0, **values}
        return values

    @model_validator(mode="after")
    def _adapter_alone_learns(self) -> Self:
        if self.lora is None:
            return self
        if self.optimizer.name != "adamw":
            raise ValueError(
                "an adapter (lora) learns with adamw: muon's update is of whole matrices, not of their factors"
            )
        for key in ("bias_update_rate", "mtp_loss_weight"):
            if getattr(self, key):
                raise ValueError(f"{key} has to be 0 where an adapter (lora) learns: the base stays as it is")
        return self


class SupervisedStage(TrainStage):
    """What the stages share that learn from rows of given text."""

    data: list[DataSource] = Field(min_length=1)
    batch_rows: int = Field(default=64, ge=1, description="rows of one optimiser step over all processes")
    linear_dtype: Literal["auto", "int8"] = Field(
        default="auto",
        description="what linear layers and experts multiply in while they learn: auto, the run's dtype; int8, at "
        "up to twice the rate where there are kernels for it, else as auto. Attention, routers and the head stay "
        "as they are",
    )


class PretrainStage(SupervisedStage):
    """Learn to predict text from packed documents."""

    kind: Literal["pretrain"]
    packing: Literal["best_fit", "concatenate"] = "best_fit"
    tokens: int = Field(gt=0, description="tokens to train on; the data is repeated if it is shorter")


class SftStage(SupervisedStage):
    """Learn completions of chat examples; the prompt is not counted in the loss."""

    kind: Literal["sft"]
    epochs: float = Field(default=1.0, gt=0)


class DistillStage(SupervisedStage):
    """Teach a student the answers that a teacher's reject stage kept, as R1 was distilled."""

    kind: Literal["distill"]
    epochs: float = Field(default=1.0, gt=0)


PROFILES: dict[str, dict[str, Any]] = {
    # DeepSeek-R1's published formulation (arXiv:2501.12948; Nature 2025 supplement B.4)
    "r1": {
        "advantage": "group_std",
        "policy_loss": "clip",
        "aggregation": "sequence_mean",
        "clip_low": 10.0,
        "clip_high": 10.0,
        "kl_weight": 0.001,
        "language_consistency_weight": 1.0,
        "drop_zero_variance": False,
        "max_refill_rounds": 0,
        "retire_pass_rate": None,
        "sft_weight": 0.0,
    },
    # what the evidence since says: centred, token mean over the whole batch, no KL, no wasted groups
    "best": {
        "advantage": "center",
        "policy_loss": "reinforce",
        "aggregation": "token_mean",
        "clip_low": 0.2,
        "clip_high": 0.28,
        "kl_weight": 0.0,
        "language_consistency_weight": 0.0,
        "drop_zero_variance": True,
        "max_refill_rounds": 1,
        "retire_pass_rate": 0.9,
        "sft_weight": 0.0,
    },
}


class RlStage(TrainStage):
    """Group-relative policy optimisation on problems with checkable answers.

    `profile` fills in whatever the recipe leaves out of the keys below it.
    """

    kind: Literal["rl"]
    problems: Problems = Problems()
    steps: int = Field(gt=0)
    problems_per_step: int = Field(default=32, ge=1)
    group_size: int = Field(default=8, ge=2, description="completions per problem")
    max_completion_tokens: int = Field(default=96, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    updates_per_batch: int = Field(default=1, ge=1, description="optimiser steps per sampled batch")
    reference_refresh_steps: int = Field(default=400, ge=1)
    exact: bool | Literal["auto"] = Field(
        default="auto",
        description="where kernels compute, learn with the very bits that were sampled with: latent attention in the "
        "engine's form, which is slower where ranks are large (`clearseek bench engine` prints by how much); auto: "
        "where that was measured to cost models of such a shape less than a tenth",
    )
    max_mismatch: float = Field(
        default=15.0,
        gt=0,
        description="largest |sampler − trainer| log-probability of one token: 0 where kernels compute exactly; else "
        "in bf16 a token at a router's edge may take another expert, rare and large; in fp32 1e-3 holds",
    )
    max_mean_mismatch: float = Field(default=0.03, gt=0, description="the same on the average of a batch")

    profile: Literal["r1", "best"] = "best"
    advantage: Literal["group_std", "center", "leave_one_out", "batch_std"]
    policy_loss: Literal["reinforce", "clip", "cispo", "gspo"]
    aggregation: Literal["token_mean", "sequence_mean", "constant"]
    clip_low: float = Field(ge=0)
    clip_high: float = Field(ge=0)
    kl_weight: float = Field(ge=0)
    language_consistency_weight: float = Field(ge=0)
    drop_zero_variance: bool
    max_refill_rounds: int = Field(ge=0)
    retire_pass_rate: float | None = Field(default=None, gt=0, le=1)
    sft_weight: float = Field(ge=0, description="weight of a supervised term in the same step")
    sft_data: list[DataSource] = []
    licence: SpdxLicence | None = Field(
        default=None, description="SPDX id of the answers it keeps of problems that it retires"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        profile = values.get("profile", "best")
        known = isinstance(profile, str) and profile in PROFILES
        return {**PROFILES[profile if known else "best"], **values}

    @model_validator(mode="after")
    def _sft_term_has_data(self) -> Self:
        if bool(self.sft_weight) != bool(self.sft_data):
            raise ValueError("sft_weight and sft_data belong together: give both or neither")
        return self


class RejectStage(StageBase):
    """Sample completions, keep the right ones as examples for a later stage."""

    kind: Literal["reject"]
    tokenizer: str | None = None
    problems: Problems = Problems()
    count: int = Field(gt=0, description="problems to sample")
    samples: int = Field(default=4, ge=1)
    keep_per_problem: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_completion_tokens: int = Field(default=96, ge=1)
    min_language_consistency: float = Field(default=0.0, ge=0, le=1)
    include_retired: list[str] = Field(
        default=[], description="rl stages whose solved problems join the pool"
    )
    licence: SpdxLicence | None = Field(default=None, description="SPDX id of the examples that it keeps")


class EvalStage(StageBase):
    """Examine a model more closely than the evaluation after each stage."""

    kind: Literal["eval"]
    evaluation: Evaluation | None = Field(default=None, description="default: the recipe's [evaluation]")


Stage = Annotated[
    TokenizerStage | PretrainStage | SftStage | DistillStage | RlStage | RejectStage | EvalStage,
    Field(discriminator="kind"),
]
STAGE_KINDS: dict[str, type[Table]] = {
    "tokenizer": TokenizerStage,
    "pretrain": PretrainStage,
    "sft": SftStage,
    "distill": DistillStage,
    "rl": RlStage,
    "reject": RejectStage,
    "eval": EvalStage,
}


class Recording(Table):
    """How much of a training's state the run records, so that it can be replayed and disputed, and what it indexes."""

    hash_every: int = Field(
        default=0,
        ge=0,
        description="steps between hashes of weights and optimiser; 0: often enough that 1 MB is hashed a step, at "
        "most every 20 steps. Resume points and the end of a stage have one always",
    )
    states_mb: int = Field(
        default=256,
        ge=0,
        description="megabytes of resume points that a stage leaves for replay, evenly apart; 0: none, and a step is "
        "replayed from the start of its stage",
    )
    index: bool = Field(
        default=False,
        description="build the indexes of `clearseek trace` when the run has ended; else its first trace does",
    )


class Published(Table):
    """What the authors of a method say a stage took, for the planner to print beside its own figure."""

    gpu_hours: float | None = Field(default=None, gt=0)
    tokens: float | None = Field(
        default=None, gt=0, description="tokens trained on, where the data are not here to be counted"
    )
    source: str


class Recipe(Table):
    """A whole run: models by name, stages in order, one seed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = Field(default=1, ge=0, lt=2**63)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool | Literal["auto"] = "auto"
    cache_gib: float | None = Field(
        default=None, gt=0, description="of memory for the cache of our engine; default: half of what is free"
    )
    models: dict[str, NewModel] = {}
    evaluation: Evaluation = Evaluation()
    ledger: Recording = Recording()
    final: str | None = Field(
        default=None, description="the stage whose model the run stands for; default: the last"
    )
    stages: dict[str, Stage] = Field(min_length=1)
    published: dict[str, Published] = Field(
        default={}, description="figures to compare a plan with, by stage or by stages joined with +"
    )

    release: Release | None = Field(
        default=None, description="what is stated of the model, for the papers of a run"
    )

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        seen: set[str] = set()
        clash = set(self.models) & set(self.stages)
        if clash:
            raise ValueError(f"a model and a stage are both named {sorted(clash)[0]!r}; rename one")
        for name, stage in self.stages.items():
            for source in getattr(stage, "data", []) + getattr(stage, "sft_data", []):
                if source.stage is not None and source.stage not in seen:
                    raise ValueError(_unknown_stage(f"stages.{name}.data.stage", source.stage, seen))
            start = getattr(stage, "start", None)
            if start in self.stages and start not in seen:
                raise ValueError(f"stages.{name}.start is {start!r}, which comes later; put it first")
            seen.add(name)
        for key in self.published:
            for name in key.split("+"):
                if name not in self.stages:
                    raise ValueError(_unknown_stage(f"published.{key}", name, seen))
        if self.final is not None and self.final not in self.stages:
            raise ValueError(_unknown_stage("final", self.final, seen))
        return self


def _unknown_stage(place: str, name: str, seen: set[str]) -> str:
    """The message for a reference to a stage that is not there (yet)."""
    known = ", ".join(sorted(seen)) or "none"
    return f"{place} is {name!r}, which is no earlier stage; earlier stages: {known}"
