"""What a run is made of, as one typed value: stored with the run; the command line's flags are made from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from osmotic.training.autoencoding import Autoencoding
from osmotic.training.options import Options

Share = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, strict=True)]
Network = Literal["unet", "dit", "mlp"]

# The names of the catalogues, kept here without torch so that `--help` is fast; a test holds them to the catalogues.
Schedule = Literal[
    "rectified",
    "cosine",
    "vp",
    "sub-vp",
    "ve",
    "geometric-ve",
    "sigmoid",
    "ddpm-linear",
    "ddpm-scaled-linear",
    "ddpm-cosine",
    "ddpm-sigmoid",
    "ddpm-zero-terminal",
    "rectified-shifted",
    "cosine-shifted",
]
Objective = Literal[
    "denoising",
    "hybrid",
    "bound",
    "ncsn",
    "sliced-score",
    "classifier",
    "autoencoder",
    "lsgm",
    "contrastive",
    # few-step models from scratch: osmotic.distill
    "scm",
    "ct",
    "ict",
    "meanflow",
    "shortcut",
    "ddgan",
]
Coupling = Literal["independent", "optimal"]
Adaption = Literal["lora", "control", "whole", "word"]
# The few-step methods: those that need a teacher, and those that can do without.
Method = Literal[
    "knowledge",
    "progressive",
    "guided",
    "consistency",
    "ect",
    "scm",
    "ctm",
    "reflow",
    "dmd",
    "ct",
    "ict",
    "meanflow",
    "shortcut",
    "ddgan",
]
Form = Literal["denoiser", "flow-map", "consistency", "chain"]
Target = Literal["x0", "eps", "score", "v", "velocity", "karras"]
Law = Literal["uniform", "levels", "logit-normal", "log-normal", "adaptive"]
Weight = Literal["unit", "min-snr", "likelihood", "karras", "noise"]
Sampler = Literal[
    "ddim",
    "ddim-half",
    "ddpm",
    "ddpm-large",
    "euler",
    "midpoint",
    "heun",
    "heun-churn",
    "euler-time",
    "heun-time",
    "heun-rho",
    "midpoint-rho",
    "rk4",
    "rk4-rho",
    "rk4-log-snr",
    "rk4-time",
    "rk45",
    "flow-2m",
    "flow-3m",
    "flow-2pc",
    "flow-3pc",
    "lms-2",
    "lms-3",
    "lms-4",
    "plms",
    "pndm",
    "deis-time-2",
    "deis-time-3",
    "deis-log-rho-2",
    "deis-log-rho-3",
    "dpm-solver-1",
    "dpm-solver-2",
    "dpm-solver-3",
    "dpm-solver-fast",
    "dpm-solver-12",
    "dpm-solver-23",
    "dpmpp-2s",
    "dpmpp-3s",
    "dpmpp-2m",
    "dpmpp-3m",
    "dpmpp-3m-published",
    "unipc-1",
    "unipc-2",
    "unipc-3",
    "res-2s",
    "res-2m",
    "sde-dpmpp-1",
    "sde-dpmpp-2m",
    "sde-dpmpp-3m",
    "sa-solver",
    "euler-maruyama",
    "euler-maruyama-half",
    "euler-maruyama-time",
    "reverse-diffusion",
    "predictor-corrector",
    "restart",
    "annealed-langevin",
    "jump",
    "consistency",
]
Grid = Literal[
    "uniform",
    "quadratic",
    "cubic",
    "beta",
    "cosine",
    "karras",
    "log-snr",
    "poly-exponential",
    "power",
    "span",
    "iddpm",
    "ays-sd15",
    "ays-sdxl",
    "ays-deepfloyd",
    "ays-svd",
    "levels",
]


class Frozen(BaseModel):
    """A value that cannot change and takes no unknown or infinite entries."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def explicit(model: BaseModel) -> dict[str, Any]:
    """The fields that were set when a model was made, even to their defaults: what was asked for, not found."""
    return {name: getattr(model, name) for name in model.model_fields_set}


class Architecture(Frozen):
    """The network; what is left out is chosen by the size and kind of the data."""

    network: Network | None = Field(None, description="unet, dit or mlp; by default a U-Net for pictures and sequences")
    widths: tuple[Width, ...] | None = Field(None, description="channels of each level of a U-Net or layer of an MLP")
    blocks: Annotated[int, Field(ge=1, strict=True)] = Field(2, description="residual blocks a level of a U-Net")
    attention: tuple[Annotated[int, Field(ge=0, strict=True)], ...] | None = Field(
        None, description="levels of a U-Net that attend, 0 the finest"
    )
    width: Width = Field(256, description="width of a DiT")
    depth: Width = Field(8, description="blocks of a DiT")
    patch: Width = Field(2, description="side of a DiT's patches")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout within the network")


class Process(Frozen):
    """The diffusion process and what of it is learned."""

    objective: Objective = Field(
        "denoising",
        description="the loss; hybrid and bound also learn the variance of ancestral steps, ncsn and sliced-score are "
        "score matching, classifier is for `osmotic sample --classifier`, autoencoder and lsgm for latents, "
        "contrastive reads pictures and captions into one space, the others make few-step models",
    )

    schedule: Schedule = Field("ve", description="the path from data to noise")
    target: Target = Field("karras", description="what the network outputs")
    law: Law = Field("log-normal", description="how training times are drawn")
    weight: Weight = Field("unit", description="how errors at each time are weighted, on top of the target's own scale")
    coupling: Coupling = Field(
        "independent",
        description="which noise each sample is trained with: any, or the nearest within the batch (optimal transport)",
    )
    condition_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of samples that are told nothing in training, for guidance"
    )
    part_dropout: dict[str, Share] | None = Field(
        None,
        description="share of samples that are not told one thing, NAME RATE ..., names being class, text and what "
        "--condition says (default: --condition-dropout, where several things are told)",
    )
    sigma_data: float | None = Field(None, gt=0, description="standard deviation of the data; measured by default")


class Distillation(Frozen):
    """The numbers of few-step methods; each method reads a few of them and refuses the others."""

    guidance: float = Field(1.0, ge=0, description="distil the teacher under this classifier-free scale")
    largest_guidance: float = Field(
        4.0, gt=1, description="guided: the largest scale that the student can be asked for"
    )
    pairs: int = Field(16_384, ge=64, description="knowledge, reflow, dmd: noise-sample pairs made by the teacher")
    jumps: int = Field(32, ge=2, description="progressive, guided: jumps of the first round; a power of two")
    last_jumps: int | None = Field(
        None, ge=1, description="progressive, guided, dmd, ddgan: jumps of the finished student (default: 1, ddgan 4)"
    )
    rounds: int = Field(1, ge=1, description="reflow: how many times the flow is straightened")
    adversarial: float = Field(0.0, ge=0, description="ctm: weight of the adversarial term; 0 has no discriminator")


class Student(Frozen):
    """What a few-step model is: stored with its run, so that it can be made again and sampled as it was trained."""

    method: Method
    form: Form = Field(description="what it is asked for: see osmotic.flow_map")
    stops: tuple[float, ...] | None = Field(None, description="the only times that it knows, falling; None for all")
    scales: tuple[float, float] | None = Field(None, description="the guidance scales that it learned to follow")
    latents: int = Field(0, ge=0, description="normal numbers that it draws x0 from, besides x_t")
    smooth: bool = Field(False, description="its clock turns slowly, so that it can be differentiated in time")
    sampler: Sampler = "jump"
    steps: int = Field(1, ge=1, description="of the sampler, where nothing is said")
    teacher: str | None = Field(None, description="the run that it learned from, and which weights of it")
    fingerprint: str | None = Field(None, description="of those weights")


class Adapted(Frozen):
    """What was put beside a trained network, or that it was trained further."""

    by: Adaption
    base: str = Field(description="the run it began with, and which of its weights")
    rank: int = Field(4, ge=1, description="of LoRA")
    word: str | None = Field(None, description="a new word of the texts, or a new class, which learns besides")
    like: str | None = Field(None, description="the known one that it begins as")
    caption: str | None = Field(None, description="of all samples, where the data have none")
    prior: int | None = Field(None, ge=0, description="samples of the base, half of what is trained on; 0 for none")


class Coded(Frozen):
    """The codec whose latents are diffused; it is kept in the run."""

    source: str = Field(description="a linear codec by name, or the run of an autoencoder")
    fingerprint: str
    shape: tuple[Width, ...] = Field(description="of the latents of one sample")
    data: tuple[Width, ...] = Field(description="of one sample")


class Recipe(Frozen):
    """Everything that decides the outcome of a training run, but the data themselves."""

    options: Options = Options()
    architecture: Architecture = Architecture()
    process: Process = Process()
    codec: Coded | None = None
    autoencoder: Autoencoding | None = None
    student: Student | None = None
    adapted: Adapted | None = None
    distillation: Distillation = Distillation()
    holdout: float = Field(0.1, ge=0, lt=1, description="share of the data held out to measure the loss on")
    reading: dict[str, Any] = Field({}, description="how the data were read, where that was not found")
    flip: bool = Field(False, description="mirror pictures left to right at random while training")
    upend: bool = Field(False, description="mirror pictures top to bottom at random while training")
    turn: bool = Field(False, description="turn square pictures by quarter turns at random while training")
    shift: int = Field(
        0, ge=0, strict=True, description="shift pictures by up to so many pixels at random while training"
    )
