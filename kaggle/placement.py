"""Where the arithmetic happens, in which number format, and in how many processes: the one place that knows.

One process on a CPU is the plain case: every collective below then returns what it was given. Of several, started
by torchrun, each takes its share of a step's rows; the adapter's gradient is one vector: a step is one all-reduce.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Product = Callable[[Tensor], Tensor]
Item = TypeVar("Item")

_FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LANES = 2  # what every machine can have: the cores decide neither on the bytes of the adapter nor on its quality
_THREADS = torch.get_num_threads()  # of a process that has set nothing yet: its cores, or OMP_NUM_THREADS
_AMPERE = (8, 0)  # the first compute capability with bf16 products; a T4 is 7.5


class PlacementError(Exception):
    """One line: the hardware that was asked for is not there."""


@dataclass(frozen=True)
class Placement:
    """A training process's device, the format of its products, and its place among `processes`.

    `lanes` is the number of threads in which it works on a step's rows (`lanes.py`).
    """

    device: torch.device
    dtype: torch.dtype
    lanes: int = 1
    rank: int = 0
    processes: int = 1

    @property
    def number_format(self) -> str:
        return _name(self.dtype)

    @property
    def made_with(self) -> str:
        """What a sum's rounding depends on besides its terms."""
        threads = f", {self.lanes} x {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"torch {torch.__version__}, {self.processes} x {self.device.type}{threads}"

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part; it may be empty."""
        return items[self.rank :: self.processes]

    def sum(self, values: Tensor) -> Tensor:
        """Add up `values` over all processes, in place."""
        if self.processes > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: float) -> float:
        """The first process's value, for decisions on which all must agree."""
        if self.processes == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return shared.item()


def place(number_format: str | None, device: str = "cpu", rows_per_step: int = 1) -> Placement:
    """Take this process's part of `device`, "cpu" or "cuda"; `number_format` None means the fastest one here.

    On a CPU a step's rows are worked on in two lanes, which share the cores.

    Raises:
        PlacementError: torch sees no such GPU.
    """
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", 0))
        if local >= torch.cuda.device_count():
            seen = torch.cuda.device_count()
            raise PlacementError(
                f"process {local} needs a GPU of its own, and torch {torch.__version__} sees {seen}"
            )
        torch.cuda.set_device(local)
        where, backend = torch.device("cuda", local), "nccl"
        lanes = 1
    else:
        where, backend = torch.device("cpu"), "gloo"
        lanes = min(_LANES, rows_per_step)
        torch.set_num_threads(max(1, _THREADS // lanes))
    if processes > 1:
        dist.init_process_group(backend)
    chosen = [number_format or _name(_fastest_on_gpu(where) if device == "cuda" else fastest_format())]
    if processes > 1:
        dist.broadcast_object_list(chosen, src=0)  # each has measured for itself
    return Placement(where, _FORMATS[chosen[0]], lanes, rank, processes)


def leave() -> None:
    """End the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fastest_on_gpu(device: torch.device) -> torch.dtype:
    """bf16 where the GPU has it, else fp16 (which needs loss scaling: `loss_scale.py`)."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= _AMPERE else torch.float16


def fastest_format() -> torch.dtype:
    """bf16 where this processor has instructions for its matrix products, else fp32.

    The instruction set decides, not a measurement: on a busy machine that might come out either way, and so might
    the model. Without AVX512_BF16 (which all processors with AMX have) oneDNN emulates bf16 several times more
    slowly than fp32; with it bf16 is up to four times as fast (930 against 210 GFLOP/s on two Zen 5 cores).
    oneDNN is asked as well, since ONEDNN_MAX_CPU_ISA may keep it from using the instructions.
    """
    usable = torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if usable else torch.float32


def products(weight: Tensor) -> tuple[Product, Product]:
    """x [T, in] -> x W^T and y [T, out] -> y W for a frozen weight W [out, in], the fastest way there is here.

    torch leaves fp32 products on a CPU to MKL. On two Zen 3 cores oneDNN, with the weight in its own layout, is
    faster where the outputs are many (130 instead of 68 to 94 GFLOP/s), and other work on the machine slows it
    down less (to 60 instead of 35). It costs a second copy of the weight: one for each direction.
    """
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return _packed(weight), _packed(weight.t().contiguous())
    return lambda x: torch.nn.functional.linear(x, weight), lambda y: y @ weight


def _packed(weight: Tensor) -> Product:
    layout = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, layout, None, "none", [], "")
