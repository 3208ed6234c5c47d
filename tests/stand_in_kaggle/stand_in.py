"""The stand-in as a whole: what a test sets, and what answers an RPC."""

from __future__ import annotations

import os
import secrets
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .accounts import Account, Accounts, Caller
from .blobs import Blobs
from .datasets import Datasets
from .faults import Fault, Faults
from .kernels import Kernels
from .messages import RPCS
from .pushing import Sources
from .record import Record
from .sessions import Session
from .settings import Delays, Limits
from .signed import SignedUrls
from .wire import Answer, Request, UnknownField, gateway_error, permission_denied


class StandInKaggle:
    """Accounts, datasets, kernels, faults and the record of requests; `url` once it is served."""

    def __init__(
        self,
        folder: Path,
        *,
        accounts: list[Account],
        delays: Delays | None = None,
        limits: Limits | None = None,
        faults: list[Fault] | None = None,
        models: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` holds everything; `models`: folders by ref; `environment`: more variables for the notebooks."""
        self.url = ""
        self.record = Record()
        self.failures: list[str] = []  # where the stand-in itself failed
        self.faults = Faults()
        self.faults.add(*(faults or []))
        self.accounts = Accounts(accounts)
        delays, limits = delays or Delays(), limits or Limits()
        self.urls = SignedUrls(delays.url_life_s)
        self.blobs = Blobs(folder / "blobs", self.faults)
        self.datasets = Datasets(self.blobs, self.faults, delays, limits)
        self.kernels = Kernels(
            Sources(self.datasets, models or {}),
            self.urls,
            folder / "sessions",
            self.faults,
            delays,
            limits,
            environment or {},
        )
        self._lock = threading.Lock()
        self._rpcs = self._handlers()

    def serve_at(self, url: str) -> None:
        """The address is known: URLs can be made."""
        self.url = self.blobs.url = self.urls.url = url

    def answer(self, service: str, method: str, authorization: str | None, body: dict[str, Any]) -> Answer:
        """Carry out an RPC and answer it."""
        if RPCS.get(method, ("",))[0] != service or method not in self._rpcs:
            return gateway_error(404, "Method not found.", "NOT_FOUND")
        try:
            request = Request(RPCS[method][1], body)
        except UnknownField as error:
            self.failures.append(str(error))
            return permission_denied(f"the stand-in does not read this: {error}", 501)
        caller = self.accounts.identify(authorization)
        if isinstance(caller, Answer) and method != "IntrospectToken":
            return caller
        try:
            with self._lock:
                result = self._rpcs[method](caller, request)
        except Exception as error:
            traceback.print_exc()
            self.failures.append(f"{method}: {error!r}")
            return gateway_error(500, f"the stand-in failed: {error!r}", "INTERNAL")
        return result if isinstance(result, Answer) else Answer(200, result)

    def log_session(self, authorization: str | None, body: dict[str, Any]) -> Session | Answer:
        """The run whose log a GetKernelSessionLogsStream or a GET of the stream wants."""
        caller = self.accounts.identify(authorization)
        if isinstance(caller, Answer):
            return caller
        with self._lock:
            return self.kernels.log_session(caller, Request(RPCS["GetKernelSessionLogsStream"][1], body))

    def runs_started(self) -> int:
        """How many notebooks were started, whatever became of them."""
        return sum(session.started for session in self.kernels.sessions)

    def client_environment(self, account: Account, home: Path) -> dict[str, str]:
        """The whole environment of a process in which the unpatched client reaches this stand-in and nothing else.

        Its upload state, config and temporary files stay in `home`. Production is reached by https only, and the
        stand-in as a proxy for it refuses and remembers that as a failure.
        """
        temporary = home / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_API_TOKEN": account.token,
            "http_proxy": self.url,
            "https_proxy": self.url,
            "no_proxy": "127.0.0.1",
        }

    def close(self) -> None:
        """Stop every run and let go of every request that is held."""
        self.faults.lift_all()
        for session in self.kernels.sessions:
            session.abandon()
        self.failures.extend(session.failure for session in self.kernels.sessions if session.failure)

    def _handlers(self) -> dict[str, Callable[[Caller, Request], dict | Answer]]:
        return {
            "IntrospectToken": lambda _, request: self.accounts.introspect(request),
            "StartBlobUpload": self.blobs.start_blob_upload,
            "CreateDataset": self.datasets.create_dataset,
            "CreateDatasetVersion": self.datasets.create_dataset_version,
            "GetDatasetStatus": self.datasets.get_dataset_status,
            "GetDataset": self.datasets.get_dataset,
            "ListDatasets": self.datasets.list_datasets,
            "ListDatasetFiles": self.datasets.list_dataset_files,
            "DeleteDataset": self.datasets.delete_dataset,
            "SaveKernel": self.kernels.save_kernel,
            "GetKernelSessionStatus": self.kernels.get_kernel_session_status,
            "GetKernel": self.kernels.get_kernel,
            "ListKernels": self.kernels.list_kernels,
            "ListKernelFiles": self.kernels.list_kernel_files,
            "ListKernelSessionOutput": self.kernels.list_kernel_session_output,
            "DeleteKernel": self.kernels.delete_kernel,
            "CancelKernelSession": self.kernels.cancel_kernel_session,
            "GetAcceleratorQuotaStatistics": self.kernels.get_accelerator_quota_statistics,
        }


def alice() -> Account:
    """A fresh account. Its token and key have the form of real ones and open nothing anywhere else."""
    return Account("alice", token=f"KGAT_{secrets.token_hex(16)}", key=secrets.token_hex(16))
