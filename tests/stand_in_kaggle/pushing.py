"""What a push says: the notebook, its settings, and the sources that its run will find under /kaggle/input."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .accounts import Account
from .datasets import Datasets, mount
from .sandbox import Mount
from .settings import TAGS
from .wire import Request

_T4_X2 = ("Tesla T4", "Tesla T4")
# what runs for a machine shape: P100 is retired and replaced in silence, an unknown one is saved as `Gpu`
SHAPES = {"NvidiaTeslaT4": _T4_X2, "NvidiaTeslaP100": _T4_X2, "Gpu": _T4_X2, "Tpu1VmV38": (), "": ()}


@dataclass(frozen=True)
class Pushed:
    """What SaveKernel said, apart from which kernel it is."""

    text: str
    language: str
    datasets: list[str]
    kernels: list[str]
    models: list[str]
    competitions: list[str]
    tags: list[str]
    private: bool
    tpu: bool
    internet: bool
    docker_image: str
    shape: str

    @property
    def gpus(self) -> tuple[str, ...]:
        return SHAPES[self.shape]


class Sources:
    """All that can be mounted: datasets, kernels' outputs, and models as folders by their whole reference."""

    def __init__(self, datasets: Datasets, models: Mapping[str, Path]) -> None:
        self._datasets, self._models = datasets, models

    def bind(
        self, account: Account, pushed: Pushed, finished: Callable[[str], Path | None]
    ) -> tuple[tuple[Mount, ...], dict[str, list[str]]]:
        """The mounts of a push's sources, and by field of the answer those that are not valid.

        `finished` gives the outputs of a kernel's last run, if the account may read them.
        """
        mounts: list[Mount] = []
        invalid: dict[str, list[str]] = {
            "invalidTags": [tag for tag in pushed.tags if tag not in TAGS],
            "invalidDatasetSources": [],
            "invalidKernelSources": [],
            "invalidModelSources": [model for model in pushed.models if model not in self._models],
            "invalidCompetitionSources": list(pushed.competitions),
        }
        for source in pushed.datasets:
            if bound := self._datasets.bind(account, source):
                dataset, version = bound
                mounts.append(Mount(f"datasets/{dataset.ref}", dataset.slug, partial(mount, version)))
            else:
                invalid["invalidDatasetSources"].append(source)
        for source in pushed.kernels:
            if outputs := finished(source):
                copy = partial(shutil.copytree, outputs)
                owner, slug = source.split("/")[:2]
                mounts.append(Mount(f"notebooks/{owner}/{slug}", slug, copy))
            else:
                invalid["invalidKernelSources"].append(source)
        for model in pushed.models:
            if model in self._models:
                copy = partial(shutil.copytree, self._models[model])
                mounts.append(Mount(f"models/{model}", model.split("/")[1], copy))
        return tuple(mounts), invalid


def pushed(request: Request) -> Pushed:
    """Read a SaveKernel request."""
    return Pushed(
        text=request["text"],
        language=request["language"],
        datasets=request["datasetDataSources"],
        kernels=request["kernelDataSources"],
        models=request["modelDataSources"],
        competitions=request["competitionDataSources"],
        tags=request["categoryIds"],
        private=request["isPrivate"],
        tpu=request["enableTpu"],
        internet=request["enableInternet"],
        docker_image=request["dockerImage"],
        shape=shape(request),
    )


def shape(request: Request) -> str:
    """The machine shape that is saved: one of `SHAPES`; '' is a CPU."""
    asked = request["machineShape"]
    if asked:
        return asked if asked in SHAPES else "Gpu"
    return "NvidiaTeslaT4" if request["enableGpu"] else ""
