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
DATA_METRICS = Path("metrics/data.json")
DATA_CARD = Path("data/card.md")
DATA_PLOTS = Path("plots/data")
MISTAKES = Path("data/mistakes.yaml")
USAGE = Path("data/usage.yaml")
CHAT_TEMPLATE = Path("data/chat_template.jinja")
CACHE = Path(".cache")


@dataclass(frozen=True)
class ModelPaths:
    """The places of one model size; no two sizes share one, so that switching sizes overwrites nothing."""

    size: str

    @property
    def base(self) -> Path:
        """The pretrained model: config, fp32 or bf16 safetensors, tokenizer."""
        return Path("models", self.size, "base")

    @property
    def adapter(self) -> Path:
        """The trained LoRA adapter, in peft's format."""
        return Path("models", self.size, "adapter")

    @property
    def f16(self) -> Path:
        """The folder of the merged model as an f16 GGUF."""
        return Path("models", self.size, "f16")

    @property
    def quants(self) -> Path:
        """The folder of the quantized GGUFs and of `quants.json`, which lists them."""
        return Path("models", self.size, "quants")

    @property
    def predictions(self) -> Path:
        """The folder of what each quant answered, a JSONL file a quant."""
        return Path("models", self.size, "predictions")

    @property
    def metrics(self) -> Path:
        """The folder of this size's figures."""
        return Path("metrics", self.size)

    @property
    def plots(self) -> Path:
        """The folder of this size's plots."""
        return Path("plots", self.size)
