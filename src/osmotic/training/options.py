"""The settings of one training run, in one place: command-line flags are made from these fields (torch-free)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Count = Annotated[int, Field(ge=1, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
Precision = Literal["auto", "float32", "bfloat16"]


class Options(BaseModel):
    """How to train: every count is in optimizer steps, which do not depend on the number of processes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: Count = Field(10_000, description="optimizer steps in all")
    batch_size: Count = Field(128, description="samples in one optimizer step, over all processes")
    accumulate: Count = Field(1, description="split each step into this many smaller passes (less memory)")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    warmup: Whole = Field(100, description="steps of linear warm-up")
    floor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="last learning rate as a share of the peak, reached along a cosine; 1 keeps it constant",
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of matrices and kernels")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 does not clip")
    ema: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (500.0,),
        description="half-lives, in steps, of the averaged weights; the first one is the default to sample from",
    )
    ema_ramp: float = Field(
        0.1,
        gt=0,
        le=1,
        description="warm-up of the averages: no half-life is longer than this share of the steps so far",
    )
    precision: Precision = Field("auto", description="arithmetic of the network; auto takes bfloat16 where it is fast")
    compile: bool = Field(False, description="compile the network (slow start, faster steps)")
    gradient_checkpointing: bool = Field(
        False,
        description="compute activations again instead of keeping them: less memory, steps about a third longer, the "
        "same bits (by itself where the plan finds that a step would not fit)",
    )
    shard: bool = Field(
        False, description="shard weights and optimizer over the processes (FSDP2) instead of copying (DDP)"
    )
    workers: Whole = Field(1, description="threads that prepare batches ahead; 0 prepares them in the loop")
    seed: int = Field(0, ge=0, lt=2**63, strict=True, description="the one number all randomness is a function of")
    log_every: Count = Field(50, description="steps between lines of metrics.jsonl")
    evaluate_every: Count = Field(500, description="steps between measurements of the held-out loss")
    checkpoint_every: Count = Field(500, description="steps between checkpoints")
    preview_every: Count = Field(500, description="steps between preview pictures")
    keep_last: Count = Field(2, description="newest checkpoints to keep, besides the best one")
    max_skips: Whole = Field(10, description="non-finite batches in a row that are skipped before the run stops")

    @field_validator("ema")
    @classmethod
    def _distinct(cls, halflives: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(halflives)) != len(halflives):
            raise ValueError("every half-life may be given once")
        return halflives
