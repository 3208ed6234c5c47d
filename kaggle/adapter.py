"""The LoRA adapter: made and saved by `peft`, trained as one flat fp32 vector.

In: a `transformers` model, rank and alpha. Out: `decoder.Decoder`'s layers with their adapters attached, and an
adapter directory that `PeftModel.from_pretrained` loads. One vector means one optimizer tensor, one norm to clip,
one tensor in a checkpoint, and one all-reduce where several processes train.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from decoder import Decoder
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
        self._starts: dict[int, int] = {}
        begin = 0
        for parameter in trained:
            self._starts[id(parameter)] = begin
            parameter.data = self._part(self.values.detach(), parameter)
            begin += parameter.numel()

    def attach(self, decoder: Decoder, lanes: int = 1) -> list[Decoder]:
        """Give every adapted layer its masters; returns `lanes` decoders that share all but their gradients.

        So as many threads can go through the model at the same time. The first one's gradient is that of `values`;
        `collect` adds the others' to it.
        """
        self._groups = []
        for number in self._adapted(decoder):
            for group, pairs in zip(decoder.layers[number].groups, self._pairs(number), strict=True):
                group.attach([(a.data, b.data) for a, b in pairs], self.scale)
                self._groups.append(group)
        self.refresh()
        self._others = [torch.zeros_like(self.values.grad) for _ in range(lanes - 1)]
        return [self._lane(decoder, gradient) for gradient in (self.values.grad, *self._others)]

    def _lane(self, decoder: Decoder, gradient: Tensor) -> Decoder:
        """The decoder whose backward pass adds to `gradient`, a vector as long as `values`."""
        layers = list(decoder.layers)
        for number in self._adapted(decoder):
            groups = [
                group.with_gradients([(self._part(gradient, a), self._part(gradient, b)) for a, b in pairs])
                for group, pairs in zip(layers[number].groups, self._pairs(number), strict=True)
            ]
            layers[number] = layers[number].with_groups(groups)
        return decoder.with_layers(layers)

    def _adapted(self, decoder: Decoder) -> range:
        """The numbers of the layers that carry an adapter."""
        return range(self.first_layer, len(decoder.layers))

    def _pairs(self, number: int) -> list[list[tuple[Tensor, Tensor]]]:
        """The parameters (A, B) of a layer's projections, by the groups of `DecoderLayer.groups`."""
        layer = self.peft.get_base_model().model.layers[number]
        attention, mlp = layer.self_attn, layer.mlp
        linears = (
            [attention.q_proj, attention.k_proj, attention.v_proj],
            [attention.o_proj],
            [mlp.gate_proj, mlp.up_proj],
            [mlp.down_proj],
        )
        return [
            [(each.lora_A["default"].weight, each.lora_B["default"].weight) for each in group] for group in linears
        ]

    def _part(self, vector: Tensor, parameter: Tensor) -> Tensor:
        """The part of a vector as long as `values` that is this parameter's, in its shape."""
        begin = self._starts[id(parameter)]
        return vector[begin : begin + parameter.numel()].view(parameter.shape)

    def clear_gradients(self) -> None:
        """Set the gradient of every lane to zero."""
        for gradient in (self.values.grad, *self._others):
            gradient.zero_()

    def collect(self) -> Tensor:
        """The sum of all lanes' gradients, in `values.grad`: always in the same order, so to the same bytes."""
        for gradient in self._others:
            self.values.grad.add_(gradient)
        return self.values.grad

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
