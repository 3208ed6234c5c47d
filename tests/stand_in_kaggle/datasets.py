"""Datasets: created from uploaded files, in versions that take time to become ready, mounted into runs.

The states are those of kagglesdk's DatabundleVersionStatus; before the first of them a new dataset answers 403 to
its own owner, and what is not there at all answers the same.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from .accounts import Account, Caller
from .blobs import Blob, Blobs
from .effects import BindPrevious, EndProcessing, InvalidSource
from .faults import BINDING, PROCESSING, Faults
from .settings import TAGS, Delays, Limits
from .wire import Answer, Request, message, page, permission_denied

_DENIED = "DENIED"  # no state of Kaggle's: nothing can be asked about the dataset yet
_STATES = (
    "NOT_YET_PERSISTED",
    "BLOBS_RECEIVED",
    "BLOBS_DECOMPRESSED",
    "BLOBS_COPIED_TO_SDS",
    "INDIVIDUAL_BLOBS_COMPRESSED",
    "READY",
)
_ARCHIVES = {".zip": "zip", ".tar": "tar"}


@dataclass(frozen=True)
class Version:
    """A dataset's files at one time. `end`: the state it stays in instead of becoming ready."""

    number: int
    files: tuple[Blob, ...]
    notes: str
    replaces_older: bool
    end: EndProcessing | None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    since: float = field(default_factory=time.monotonic)

    def state(self, delays: Delays) -> str:
        """The state now; only a dataset's first version is denied at first."""
        age = time.monotonic() - self.since - (delays.dataset_denied_s if self.number == 1 else 0)
        if age < 0:
            return _DENIED
        if self.end:
            return self.end.state
        reached = int(age / delays.dataset_processing_s * (len(_STATES) - 1)) if delays.dataset_processing_s else 9
        return _STATES[min(reached, len(_STATES) - 1)]


@dataclass
class Dataset:
    """A named dataset of an account."""

    id: int
    owner: str
    slug: str
    title: str
    private: bool
    versions: list[Version] = field(default_factory=list)

    @property
    def ref(self) -> str:
        return f"{self.owner}/{self.slug}"

    def ready(self, delays: Delays) -> list[Version]:
        """The versions that can be read, oldest first; the last one is the current one."""
        versions: list[Version] = []
        for version in self.versions:
            if version.state(delays) == "READY":
                versions = [version] if version.replaces_older else [*versions, version]
        return versions

    def state(self, delays: Delays) -> str:
        """What GetDatasetStatus says: READY as soon as any version is, even while a newer one is not."""
        return "READY" if self.ready(delays) else self.versions[0].state(delays)


class Datasets:
    """All datasets, and the RPCs about them."""

    def __init__(self, blobs: Blobs, faults: Faults, delays: Delays, limits: Limits) -> None:
        self._blobs, self._faults, self._delays, self._limits = blobs, faults, delays, limits
        self._datasets: dict[str, Dataset] = {}
        self._ids = count(1001)

    def create_dataset(self, caller: Caller, request: Request) -> dict | Answer:
        """CreateDataset. It answers `ok` long before the dataset can be used, and names no version."""
        owner, slug = request["ownerSlug"], request["slug"]
        if owner != caller.account.name:
            return permission_denied("Permission 'datasets.create' was denied")
        if f"{owner}/{slug}" in self._datasets:
            return _refused(
                f'The requested slug "{slug}" is already in use by a dataset. Please choose another slug.'
            )
        if not all(6 <= len(name) <= 50 for name in (slug, request["title"])) or not request["licenseName"]:
            return _refused("The dataset needs a license, and a slug and a title of 6 to 50 characters.")
        files = self._files(caller.account, request["files"])
        if isinstance(files, str):
            return _refused(files)
        dataset = Dataset(next(self._ids), owner, slug, request["title"], request["isPrivate"])
        self._datasets[dataset.ref] = dataset
        return self._add_version(dataset, files, "Initial release", False, request["categoryIds"])

    def create_dataset_version(self, caller: Caller, request: Request) -> dict | Answer:
        """CreateDatasetVersion; denied while the first version is not ready (kagglehub#182)."""
        dataset = self._datasets.get(f"{request['ownerSlug']}/{request['datasetSlug']}")
        body = request["body"]
        if not dataset or dataset.owner != caller.account.name or not dataset.ready(self._delays):
            return permission_denied("Permission 'datasets.update' was denied")
        files = self._files(caller.account, body["files"])
        if isinstance(files, str):
            return _refused(files)
        return self._add_version(
            dataset, files, body["versionNotes"], body["deleteOldVersions"], body["categoryIds"]
        )

    def get_dataset_status(self, caller: Caller, request: Request) -> dict | Answer:
        """GetDatasetStatus."""
        dataset = self._visible(caller.account, request)
        if not dataset:
            return _denied()
        return message("ApiGetDatasetStatusResponse", status=dataset.state(self._delays))

    def get_dataset(self, caller: Caller, request: Request) -> dict | Answer:
        """GetDataset."""
        dataset = self._visible(caller.account, request)
        return self._describe(dataset) if dataset else _denied()

    def list_datasets(self, caller: Caller, request: Request) -> dict:
        """ListDatasets: the caller's own with the group MY, otherwise all public ones of `user`."""
        mine = "MY" in (request["group"] or "")
        shown = [
            dataset
            for dataset in self._datasets.values()
            if (dataset.owner == caller.account.name if mine else not dataset.private)
            and request["user"] in ("", dataset.owner)
            and request["search"].lower() in f"{dataset.title} {dataset.slug}".lower()
            and dataset.state(self._delays) != _DENIED
        ]
        token = request["pageToken"] or f"from-{max(request['page'] - 1, 0) * (request['pageSize'] or 20)}"
        datasets, next_token = page(shown, request["pageSize"], token)
        described = [self._describe(dataset) for dataset in datasets]
        return message("ApiListDatasetsResponse", datasets=described, nextPageToken=next_token)

    def list_dataset_files(self, caller: Caller, request: Request) -> dict | Answer:
        """ListDatasetFiles of a version, or of the current one; 20 a page unless asked otherwise."""
        dataset = self._visible(caller.account, request)
        if not dataset:
            return _denied()
        wanted = request["datasetVersionNumber"]
        versions = [v for v in dataset.ready(self._delays) if wanted in (0, v.number)]
        if wanted and not versions:
            return message("ApiListDatasetFilesResponse", errorMessage=f"Version {wanted} not found")
        blobs = versions[-1].files if versions else ()
        blobs, next_token = page(list(blobs), request["pageSize"], request["pageToken"])
        files = [
            message(
                "ApiDatasetFile",
                ref=blob.name,
                name=blob.name,
                creationDate=versions[-1].created,
                totalBytes=blob.length,
            )
            for blob in blobs
        ]
        return message("ApiListDatasetFilesResponse", datasetFiles=files, nextPageToken=next_token)

    def delete_dataset(self, caller: Caller, request: Request) -> dict | Answer:
        """DeleteDataset, the owner's right."""
        dataset = self._visible(caller.account, request)
        if not dataset or dataset.owner != caller.account.name:
            return _denied()
        del self._datasets[dataset.ref]
        return message("ApiDeleteDatasetResponse")

    def bind(self, account: Account, source: str) -> tuple[Dataset, Version] | None:
        """The version that `owner/slug` or `owner/slug/N` means to a kernel pushed now; None: no valid source."""
        owner, slug, *number = source.split("/")
        dataset = self._datasets.get(f"{owner}/{slug}")
        if not dataset or (dataset.private and dataset.owner != account.name):
            return None
        versions = [v for v in dataset.ready(self._delays) if number in ([], [str(v.number)])]
        fault = self._faults.take(BINDING)
        if not versions or (fault and isinstance(fault.effect, InvalidSource)):
            return None
        stale = fault and isinstance(fault.effect, BindPrevious) and len(versions) > 1
        return dataset, versions[-2 if stale else -1]

    def all(self) -> list[Dataset]:
        """Every dataset, oldest first."""
        return list(self._datasets.values())

    def _visible(self, account: Account, request: Request) -> Dataset | None:
        dataset = self._datasets.get(f"{request['ownerSlug']}/{request['datasetSlug']}")
        if not dataset or (dataset.private and dataset.owner != account.name):
            return None
        return dataset if dataset.state(self._delays) != _DENIED else None

    def _files(self, account: Account, files: list[Request]) -> tuple[Blob, ...] | str:
        blobs = [self._blobs.find(account.name, file["token"]) for file in files]
        if not blobs or None in blobs:
            return "A file was not uploaded, or not wholly."
        if len(blobs) > self._limits.dataset_files:
            return f"A dataset has at most {self._limits.dataset_files} top-level files."
        return tuple(blob for blob in blobs if blob)

    def _add_version(
        self, dataset: Dataset, files: tuple[Blob, ...], notes: str, replaces_older: bool, tags: list[str]
    ) -> dict:
        fault = self._faults.take(PROCESSING)
        end = fault.effect if fault and isinstance(fault.effect, EndProcessing) else None
        dataset.versions.append(Version(len(dataset.versions) + 1, files, notes, replaces_older, end))
        return message(
            "ApiCreateDatasetResponse",
            ref=dataset.ref,
            url=_url(dataset),
            status="ok",
            invalidTags=[tag for tag in tags if tag not in TAGS],
        )

    def _describe(self, dataset: Dataset) -> dict:
        ready = dataset.ready(self._delays)
        versions = [
            message(
                "ApiDatasetVersion",
                versionNumber=version.number,
                creationDate=version.created,
                versionNotes=version.notes,
                status=version.state(self._delays),
            )
            for version in ready
        ]
        return message(
            "ApiDataset",
            id=dataset.id,
            ref=dataset.ref,
            title=dataset.title,
            url=_url(dataset),
            isPrivate=dataset.private,
            totalBytes=sum(blob.length for blob in ready[-1].files) if ready else 0,
            lastUpdated=dataset.versions[-1].created,
            currentVersionNumber=ready[-1].number if ready else 0,
            versions=versions,
        )


def mount(version: Version, folder: Path) -> None:
    """Lay a version's files out in `folder`; zip and tar archives come unpacked and are gone themselves."""
    folder.mkdir(parents=True)
    for blob in version.files:
        suffix = Path(blob.name).suffix
        if suffix in _ARCHIVES:
            shutil.unpack_archive(blob.path, folder / Path(blob.name).stem, _ARCHIVES[suffix])
        else:
            shutil.copyfile(blob.path, folder / blob.name)


def _url(dataset: Dataset) -> str:
    return f"https://www.kaggle.com/datasets/{dataset.ref}"


def _denied() -> Answer:
    return permission_denied("Permission 'datasets.get' was denied")


def _refused(text: str) -> dict:
    return message("ApiCreateDatasetResponse", status="error", error=text)
