"""Kernels: saved in versions, each version run in a session of its own; what the session left can be listed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

from slugify import slugify

from .accounts import Account, Caller, quota_statistics
from .effects import PushAnother
from .faults import LABEL, PUSHED, Faults
from .pushing import SHAPES, Pushed, Sources, pushed, shape
from .sessions import TERMINAL, Job, Session
from .settings import Delays, Limits
from .signed import SignedUrls
from .wire import Answer, Request, gateway_error, message, page, permission_denied


@dataclass(frozen=True)
class KernelVersion:
    """A saved version, and its run unless it was a quick save."""

    number: int
    pushed: Pushed
    session: Session | None
    saved: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Kernel:
    """A notebook of an account under a slug."""

    id: int
    owner: str
    slug: str
    title: str
    versions: list[KernelVersion] = field(default_factory=list)

    @property
    def ref(self) -> str:
        return f"{self.owner}/{self.slug}"

    @property
    def latest(self) -> KernelVersion:
        return self.versions[-1]


class Kernels:
    """All kernels and their runs, and the RPCs about them."""

    def __init__(
        self,
        sources: Sources,
        urls: SignedUrls,
        folder: Path,
        faults: Faults,
        delays: Delays,
        limits: Limits,
        environment: Mapping[str, str],
    ) -> None:
        self.sessions: list[Session] = []  # those of deleted kernels too
        self._sources, self._urls, self._folder = sources, urls, folder
        self._faults, self._delays, self._limits, self._environment = faults, delays, limits, environment
        self._kernels: dict[str, Kernel] = {}
        self._ids = count(5001)
        folder.mkdir(parents=True)

    # --- RPCs
    def save_kernel(self, caller: Caller, request: Request) -> dict | Answer:
        """SaveKernel: a new version, and its run. What is not valid is listed, and the run starts without it."""
        account = caller.account
        target = self._target(account, request)
        refusal = target if isinstance(target, str) else self._refusal(account, request, target)
        if refusal:
            return message("ApiSaveKernelResponse", error=refusal)
        push = pushed(request)
        mounts, invalid = self._sources.bind(account, push, partial(self._finished, account, target.ref))
        self._kernels[target.ref] = target
        quick = request["kernelExecutionType"] == "QUICK_SAVE"
        limit_s = min(request["sessionTimeoutSeconds"] or self._limits.session_s, self._limits.session_s)
        job = Job(account, push.text, mounts, push.gpus, limit_s)
        version = self._add_version(target, push, None if quick else job)
        fault = self._faults.take(PUSHED)
        if fault and isinstance(fault.effect, PushAnother):
            self._push_another(target, push, job, fault.effect)
        return message(
            "ApiSaveKernelResponse",
            ref=f"/code/{target.ref}",
            url=f"https://www.kaggle.com/code/{target.ref}",
            versionNumber=version.number,
            kernelId=target.id,
            **invalid,
        )

    def get_kernel_session_status(self, caller: Caller, request: Request) -> dict | Answer:
        """GetKernelSessionStatus, of the version named or of the latest."""
        session = self._session(caller.account, request)
        if isinstance(session, Answer):
            return session
        return message("ApiGetKernelSessionStatusResponse", status=session.state, failureMessage=session.message)

    def get_kernel(self, caller: Caller, request: Request) -> dict | Answer:
        """GetKernel: a version's source and what is known about the kernel."""
        found = self._version(caller.account, request)
        if isinstance(found, Answer):
            return found
        kernel, version = found
        blob = message(
            "ApiKernelBlob",
            source=version.pushed.text,
            language=version.pushed.language,
            kernelType="notebook",
            slug=kernel.slug,
        )
        return message("ApiGetKernelResponse", metadata=_metadata(kernel, version), blob=blob)

    def list_kernels(self, caller: Caller, request: Request) -> dict:
        """ListKernels: the caller's own with the group PROFILE, otherwise all public ones; newest run first."""
        mine = request["group"] == "PROFILE"
        shown = [
            kernel
            for kernel in self._kernels.values()
            if (kernel.owner == caller.account.name if mine else not kernel.latest.pushed.private)
            and request["user"] in ("", kernel.owner)
            and request["search"].lower() in f"{kernel.title} {kernel.slug}".lower()
        ]
        shown.sort(key=lambda kernel: kernel.latest.saved, reverse=True)
        token = request["pageToken"] or f"from-{max(request['page'] - 1, 0) * (request['pageSize'] or 20)}"
        kernels, next_token = page(shown, request["pageSize"], token)
        listed = [_metadata(kernel, kernel.latest) for kernel in kernels]
        return message("ApiListKernelsResponse", kernels=listed, nextPageToken=next_token)

    def list_kernel_files(self, caller: Caller, request: Request) -> dict | Answer:
        """ListKernelFiles: names and sizes of a run's outputs."""
        session = self._session(caller.account, request)
        if isinstance(session, Answer):
            return session
        paths, next_token = page(session.files(), request["pageSize"], request["pageToken"])
        files = [
            message(
                "ApiListKernelFilesItem",
                name=path.relative_to(session.outputs).as_posix(),
                size=path.stat().st_size,
                creationDate=datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(),
            )
            for path in paths
        ]
        return message("ApiListKernelFilesResponse", files=files, nextPageToken=next_token)

    def list_kernel_session_output(self, caller: Caller, request: Request) -> dict | Answer:
        """ListKernelSessionOutput: a run's outputs as signed URLs, and its log; nothing while it runs."""
        session = self._session(caller.account, request)
        if isinstance(session, Answer):
            return session
        paths, next_token = page(session.files(), request["pageSize"], request["pageToken"])
        files = [
            message(
                "ApiKernelSessionOutputFile",
                url=self._urls.sign(path),
                fileName=path.relative_to(session.outputs).as_posix(),
            )
            for path in paths
        ]
        return message(
            "ApiListKernelSessionOutputResponse", files=files, log=session.log(), nextPageToken=next_token
        )

    def log_session(self, caller: Caller, request: Request) -> Session | Answer:
        """GetKernelSessionLogsStream: the run whose log is asked for, by its own id or by its version."""
        if not request["kernelSessionId"]:
            session = self._session(caller.account, request)
        else:
            session = self._own_session(caller.account, request["kernelSessionId"])
        if isinstance(session, Session) and session.state == "QUEUED":
            return _no_runs()
        return session

    def delete_kernel(self, caller: Caller, request: Request) -> dict | Answer:
        """DeleteKernel: the whole kernel. Runs that wait are dropped, one that runs goes on and costs quota."""
        kernel = self._kernels.get(f"{request['userName']}/{request['kernelSlug']}")
        if not kernel or kernel.owner != caller.account.name:
            return _denied()
        for version in kernel.versions:
            if version.session:
                version.session.drop()
        del self._kernels[kernel.ref]
        return message("ApiDeleteKernelResponse")

    def cancel_kernel_session(self, caller: Caller, request: Request) -> dict | Answer:
        """CancelKernelSession: for a Bearer token only, with the id that only the run itself knows."""
        if caller.way != "bearer":
            return permission_denied("Unauthenticated", 401)
        session = self._own_session(caller.account, request["kernelSessionId"])
        if isinstance(session, Answer):
            return session
        session.cancel()
        return message("ApiCancelKernelSessionResponse")

    def get_accelerator_quota_statistics(self, caller: Caller, request: Request) -> dict:
        """GetAcceleratorQuotaStatistics."""
        return self.quota(caller.account)

    def quota(self, account: Account) -> dict:
        """What an account has used and may still use; an active session reserves all that it may still use."""
        limits = [session.job.limit_s for session in self._active(account) if session.job.gpus]
        return quota_statistics(account, timedelta(seconds=sum(limits)))

    # --- pushing
    def _target(self, account: Account, request: Request) -> Kernel | str:
        """The kernel that a push is for: by id, or by the slug that its title gives; or why there is none."""
        if request["id"]:
            known = [k for k in self._kernels.values() if k.id == request["id"] and k.owner == account.name]
            return known[0] if known else "Kernel not found"
        owner, _, slug = request["slug"].partition("/")
        if owner != account.name:
            return "Notebook not found"
        if request["newTitle"] and f"{owner}/{slug}" not in self._kernels:
            slug = slugify(request["newTitle"])  # the title wins (#847)
        known = self._kernels.get(f"{owner}/{slug}")
        return known or Kernel(next(self._ids), owner, slug, request["newTitle"])

    def _refusal(self, account: Account, request: Request, kernel: Kernel) -> str:
        """Why nothing is saved or run, in Kaggle's words where they are known."""
        if len(request["newTitle"]) < 5 or len(kernel.slug) > 50:
            return "Title must be between 5 and 50 characters"
        if request["kernelType"] != "notebook" or request["language"] != "python":
            return "The stand-in runs Python notebooks only"
        if len(request["text"].encode()) > self._limits.source_bytes:
            return "The kernel source is too large. The maximum is 1 MB."
        if request["kernelExecutionType"] == "QUICK_SAVE":
            return ""
        gpus = bool(SHAPES[shape(request)])
        kind, most = ("GPU", self._limits.gpu_sessions) if gpus else ("CPU", self._limits.cpu_sessions)
        if gpus and account.quota_reached:
            return account.quota_refusal()
        if sum(bool(session.job.gpus) == gpus for session in self._active(account)) >= most:
            return f"Maximum batch {kind} session count of {most} reached."
        return ""

    def _add_version(self, kernel: Kernel, pushed: Pushed, job: Job | None) -> KernelVersion:
        session = None
        if job:
            session = Session(job, self._folder, self._faults, self._delays, self._limits, self._environment)
            self.sessions.append(session)
        kernel.versions.append(KernelVersion(len(kernel.versions) + 1, pushed, session))
        return kernel.latest

    def _push_another(self, kernel: Kernel, pushed: Pushed, job: Job, effect: PushAnother) -> None:
        notebook = json.loads(pushed.text)
        cell = {"cell_type": "code", "id": "another", "metadata": {}, "outputs": [], "execution_count": None}
        notebook["cells"] = [{**cell, "source": effect.source_line}]
        text = json.dumps(notebook)
        self._add_version(kernel, replace(pushed, text=text), replace(job, notebook=text))

    # --- finding
    def find(self, ref: str) -> Kernel | None:
        """The kernel `owner/slug`, for tests that look behind the requests."""
        return self._kernels.get(ref)

    def _version(self, account: Account, request: Request) -> tuple[Kernel, KernelVersion] | Answer:
        kernel = self._kernels.get(f"{request['userName']}/{request['kernelSlug']}")
        if not kernel or (kernel.latest.pushed.private and kernel.owner != account.name):
            return _denied()
        label = request["versionLabel"]
        if not label or self._faults.take(LABEL):
            return kernel, kernel.latest
        named = [version for version in kernel.versions if label == f"v{version.number}"]
        if not named:
            return gateway_error(404, "Requested entity was not found.", "NOT_FOUND")
        return kernel, named[0]

    def _session(self, account: Account, request: Request) -> Session | Answer:
        found = self._version(account, request)
        if isinstance(found, Answer):
            return found
        kernel, version = found
        made = [v.session for v in kernel.versions if v.number <= version.number and v.session and v.session.state]
        if version.session in made:
            return version.session
        # without a version named, it is the previous run that is seen until there is a new one
        return made[-1] if made and version is kernel.latest and not request["versionLabel"] else _no_runs()

    def _own_session(self, account: Account, number: int) -> Session | Answer:
        for session in self.sessions:
            if session.id == number and session.job.account is account:
                return session
        return gateway_error(404, "Requested entity was not found.", "NOT_FOUND")

    def _finished(self, account: Account, reader: str, source: str) -> Path | None:
        """The outputs of `owner/slug` or `owner/slug/N` for the kernel `reader`, which cannot have its own."""
        owner, slug, *number = source.split("/")
        kernel = self._kernels.get(f"{owner}/{slug}")
        if not kernel or owner != account.name or kernel.ref == reader:
            return None
        ended = [
            version.session.outputs
            for version in kernel.versions
            if number in ([], [str(version.number)]) and version.session and version.session.state in TERMINAL
        ]
        # a run that was dropped in the queue has left nothing
        return ended[-1] if ended and ended[-1].exists() else None

    def _active(self, account: Account) -> list[Session]:
        return [session for session in self.sessions if session.job.account is account and session.holds_slot]


def _metadata(kernel: Kernel, version: KernelVersion) -> dict:
    pushed = version.pushed
    return message(
        "ApiKernelMetadata",
        id=kernel.id,
        ref=kernel.ref,
        title=kernel.title,
        author=kernel.owner,
        slug=kernel.slug,
        lastRunTime=version.saved,
        language=pushed.language,
        kernelType="notebook",
        isPrivate=pushed.private,
        enableGpu=bool(pushed.gpus),
        enableTpu=pushed.tpu,
        enableInternet=pushed.internet,
        datasetDataSources=pushed.datasets,
        kernelDataSources=pushed.kernels,
        competitionDataSources=pushed.competitions,
        modelDataSources=pushed.models,
        categoryIds=pushed.tags,
        currentVersionNumber=kernel.latest.number,
        dockerImage=pushed.docker_image,
        machineShape=pushed.shape,
    )


def _denied() -> Answer:
    return permission_denied("Permission 'kernels.get' was denied")


def _no_runs() -> Answer:
    return gateway_error(404, "No runs found for this kernel.", "NOT_FOUND")
