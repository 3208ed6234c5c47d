"""What goes to Kaggle: bundles of files, each named by the digest of what is in it, and the run made of them.

A bundle becomes a private dataset of one version. Its name is its content, so that there is no version to mistake,
an upload can be repeated without harm, and a base of gigabytes goes up once for all runs. Datasets are flat.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stages.common import paths
from stages.common.files import sha256_file, write_json
from stages.common.paths import ModelPaths

MANIFEST = "oops-manifest.json"
TRAINER = Path("kaggle")


@dataclass(frozen=True)
class Bundle:
    """Files by the name they get; `folder` is where the notebook puts them, below the place of their kind."""

    kind: Literal["base", "run", "checkpoint"]
    files: dict[str, Path]
    folder: str = ""

    @cached_property
    def digests(self) -> dict[str, str]:
        """The sha256 of each file, by name."""
        return {name: sha256_file(path) for name, path in sorted(self.files.items())}

    @cached_property
    def manifest(self) -> str:
        """The text of the file by which the notebook finds and verifies the dataset."""
        return json.dumps({"kind": self.kind, "folder": self.folder, "files": self.digests}, indent=2)

    @property
    def digest(self) -> str:
        """The sha256 of the manifest, and through it of everything in the bundle."""
        return hashlib.sha256(self.manifest.encode()).hexdigest()

    @property
    def slug(self) -> str:
        """The dataset's name and title: Kaggle allows 6 to 50 characters."""
        return f"oops-{self.kind}-{self.digest[:24]}"

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file that the dataset must list."""
        return {name: path.stat().st_size for name, path in self.files.items()} | {MANIFEST: len(self.manifest)}

    def lay_out(self, folder: Path, owner: str) -> None:
        """Fill an empty folder with what the client uploads; files are linked, not copied."""
        for name, path in self.files.items():
            (folder / name).symlink_to(path.resolve())
        (folder / MANIFEST).write_text(self.manifest, encoding="utf-8")
        metadata = {"id": f"{owner}/{self.slug}", "title": self.slug, "licenses": [{"name": "other"}]}
        write_json(folder / "dataset-metadata.json", metadata)


@dataclass(frozen=True)
class CloudRun:
    """One training run, named by the digest of all that is trained: the same run has the same name everywhere."""

    model: ModelPaths
    base: Bundle
    run: Bundle
    examples: int
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        facts = f"{self.base.digest} {self.run.digest}"
        object.__setattr__(self, "digest", hashlib.sha256(facts.encode()).hexdigest()[:16])

    @property
    def size(self) -> str:
        """The model's size."""
        return self.model.size

    @property
    def folder(self) -> Path:
        """Where this run's receipt, logs and results are kept."""
        return paths.CACHE / "kaggle" / self.digest

    @property
    def result(self) -> Path:
        """The verified output; there is one only when the run is finished."""
        return self.folder / "result"

    def slug(self, attempt: int) -> str:
        """The kernel's name and title. Each attempt is a kernel of its own, with one version."""
        size = re.sub(r"[^a-z0-9]+", "-", self.size.lower()).strip("-")
        return f"oops-{size}-{self.digest}-{attempt}"


def describe_cloud_run(model: ModelPaths, description: dict[str, Any]) -> CloudRun:
    """The bundles of a run that `stages.train.describe_run` describes; its local places are left out.

    Writes run.json, which goes with the bundle, to the cache.
    """
    what = {name: description[name] for name in ("base_name", "seed", "settings")}
    text = json.dumps(what, indent=2, sort_keys=True)
    path = paths.CACHE / "kaggle" / "runs" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    trainer = {file.name: file for file in sorted(TRAINER.glob("*.py"))}
    dataset = {name: Path(description["dataset"], name) for name in (paths.TRAIN.name, paths.VALID.name)}
    return CloudRun(
        model=model,
        base=Bundle("base", {file.name: file for file in sorted(model.base.iterdir()) if file.is_file()}),
        run=Bundle("run", {**trainer, **dataset, "run.json": path}),
        examples=what["settings"]["examples"],
    )
