"""The LoRA adapter: made and saved by `peft`, trained as one flat fp32 vector.

In: a `transformers` model, rank and alpha. Out: `decoder.Decoder`'s layers with their adapters attached, and an
adapter directory that `PeftModel.from_pretrained` loads. One vector means one optimizer tensor, one norm to clip,
one tensor in a checkpoint, and one all-reduce where several processes train.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lora_layers import DecoderLayer
from peft import LoraConfig, PeftModel, get_peft_model
from peft.import_utils import is_torchao_available
from safetensors import SafetensorError
from torch import Tensor, nn

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def hide_broken_torchao() -> None:
    """Make an outdated torchao look absent: with it peft >= 0.19 fails at every linear layer.

    Kaggle's image has torchao 0.10; peft asks for 0.16.
    """
    try:
        is_torchao_available()
    except ImportError:
        sys.modules["torchao"] = None  # what Python takes for "not there"


class Adapter:
    """The adapter of a model's top layers: `values` is the fp32 master of all A and B."""

    def __init__(self, model: nn.Module, rank: int, alpha: int, layers: int | None, seed: int) -> None:
        count = model.config.num_hidden_layers
        self.first_layer = count - min(layers or count, count)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            target_modules=LINEARS,
            layers_to_transform=list(range(self.first_layer, count)) if self.first_layer else None,
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(seed)
        self.peft: PeftModel = get_peft_model(model, config)
        self.scale = alpha / rank
        trained = [p for p in self.peft.parameters() if p.requires_grad]
        self.values = nn.Parameter(torch.cat([p.detach().float().flatten() for p in trained]))
        self.values.grad = torch.zeros_like(self.values)
        self._views: dict[int, Tensor] = {}
        begin = 0
        for parameter in trained:
            view = self.values.detach()[begin : begin + parameter.numel()].view(parameter.shape)
            view.grad = self.values.grad[begin : begin + parameter.numel()].view(parameter.shape)
            parameter.data = view
            self._views[id(parameter)] = view
            begin += parameter.numel()

    def attach(self, layers: list[DecoderLayer]) -> None:
        """Give every adapted layer its masters."""
        decoder = self.peft.get_base_model().model
        self._groups = []
        for layer, module in list(zip(layers, decoder.layers, strict=True))[self.first_layer :]:
            attention, mlp = module.self_attn, module.mlp
            for group, linears in (
                (layer.qkv, [attention.q_proj, attention.k_proj, attention.v_proj]),
                (layer.out, [attention.o_proj]),
                (layer.gate_up, [mlp.gate_proj, mlp.up_proj]),
                (layer.down, [mlp.down_proj]),
            ):
                group.attach([self._masters(linear) for linear in linears], self.scale)
                self._groups.append(group)
        self.refresh()

    def _masters(self, linear: nn.Module) -> tuple[Tensor, Tensor]:
        a, b = linear.lora_A["default"].weight, linear.lora_B["default"].weight
        return self._views[id(a)], self._views[id(b)]

    def refresh(self) -> None:
        """Bring the compute-format copies up to date; call after every change of `values`."""
        with torch.no_grad():
            for group in self._groups:
                group.refresh()

    def save(self, directory: Path, base_name: str) -> None:
        """Write adapter_config.json and adapter_model.safetensors; the config names `base_name`, no local path.

        Raises:
            OSError: there is no room for them.
        """
        config = self.peft.peft_config["default"]
        config.base_model_name_or_path = base_name
        config.target_modules = sorted(config.target_modules)  # peft keeps a set: its order differs between runs
        try:
            self.peft.save_pretrained(directory, save_embedding_layers=False)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(
                f"{directory}: the adapter cannot be written ({error}); free some space and run again: "
                "training goes on from its last checkpoint"
            ) from None
        (directory / "README.md").unlink()  # peft's model card, a form that nobody has filled in
