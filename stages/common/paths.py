"""Where things are, named once, relative to the repository's root (which is every stage's working directory)."""

from dataclasses import dataclass
from pathlib import Path

GENERATED = Path("data/generated.jsonl")
EXTRA = Path("data/extra")
DATASET = Path("data/dataset")
TRAIN = DATASET / "train.jsonl"
VALID = DATASET / "valid.jsonl"
TEST = DATASET / "test.jsonl"
HELDOUT = DATASET / "heldout.jsonl"
GOLDEN = Path("tests/inference_test_cases.json")
PROMISED = Path("data/promised.yaml")
DATA_METRICS = Path("metrics/data.json")
DATA_CARD = Path("data/card.md")
DATA_PLOTS = Path("plots/data")
MISTAKES = Path("data/mistakes.yaml")
USAGE = Path("data/usage.yaml")
CHAT_TEMPLATE = Path("data/chat_template.jinja")
CACHE = Path(".cache")


def base_of(size: str) -> Path:
    """The pretrained model of a size, which all tasks start from."""
    return Path("models", size, "base")


@dataclass(frozen=True)
class ModelPaths:
    """The places of one model: a size, and what it is trained for.

    No two share one but for the base, so that switching overwrites nothing.
    """

    size: str
    task: str

    @property
    def base(self) -> Path:
        """The pretrained model: config, fp32 or bf16 safetensors, tokenizer."""
        return base_of(self.size)

    @property
    def adapter(self) -> Path:
        """The trained LoRA adapter, in peft's format."""
        return Path("models", self.size, self.task, "adapter")

    @property
    def f16(self) -> Path:
        """The folder of the merged model as an f16 GGUF."""
        return Path("models", self.size, self.task, "f16")

    @property
    def quants(self) -> Path:
        """The folder of the quantized GGUFs and of `quants.json`, which lists them."""
        return Path("models", self.size, self.task, "quants")

    @property
    def predictions(self) -> Path:
        """The folder of what each quant answered, a JSONL file a quant."""
        return Path("models", self.size, self.task, "predictions")

    @property
    def metrics(self) -> Path:
        """The folder of this model's figures."""
        return Path("metrics", self.size, self.task)

    @property
    def plots(self) -> Path:
        """The folder of this model's plots."""
        return Path("plots", self.size, self.task)
