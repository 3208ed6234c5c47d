"""What can go wrong on Kaggle, as data: those faults that were met with the real client.

`fault(name, ...)` gives one, aimed elsewhere or made more frequent where a test wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from .effects import (
    Alter,
    BindPrevious,
    Cut,
    DropAfter,
    DropBefore,
    End,
    EndProcessing,
    FlipByte,
    HangAfter,
    HangBefore,
    IgnoreLabel,
    Interrupt,
    InvalidSource,
    LoseFiles,
    LoseLog,
    Machine,
    NoRun,
    OldLayout,
    PushAnother,
    Refuse,
    RefuseAfter,
    Shorten,
    SpoilInputs,
    StayRunning,
    Unmounted,
)
from .faults import (
    BINDING,
    DOWNLOAD,
    INPUTS,
    LABEL,
    PROCESSING,
    PUSHED,
    SAVING,
    SESSION,
    START,
    STREAM,
    UPLOAD,
    UPLOAD_QUERY,
    Fault,
)


def _business_error(text: str) -> Refuse:
    return Refuse(200, {"error": text})


def _gateway(status: int, text: str, name: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": text, "status": name}}


_INTERNAL = _gateway(500, "Internal error encountered.", "INTERNAL")
_BUSY = {"code": 429, "message": "Too Many Requests"}
# the gateway's time-out page is HTML in front of real services; the client only looks at the status
_TIMED_OUT = _gateway(504, "Deadline expired before operation could complete.", "DEADLINE_EXCEEDED")
_EXPIRED = {"message": "Request has expired"}

_CATALOGUE = (
    # authentication
    Fault("introspection refused", "IntrospectToken", Refuse(401, {"code": 401, "message": "Unauthenticated"})),
    Fault("introspection breaks", "IntrospectToken", Refuse(500, _INTERNAL)),
    Fault("token inactive", "IntrospectToken", Alter(put={"active": False}), times=None),
    # any RPC; aimed at the ones where they hurt most
    Fault("push dropped before", "SaveKernel", DropBefore()),
    Fault("push dropped after", "SaveKernel", DropAfter()),
    Fault("push hangs before", "SaveKernel", HangBefore()),
    Fault("push hangs after", "SaveKernel", HangAfter()),
    Fault("push breaks", "SaveKernel", Refuse(500, _INTERNAL)),
    Fault("push times out after", "SaveKernel", RefuseAfter(504, _TIMED_OUT)),
    Fault("push too many requests", "SaveKernel", Refuse(429, _BUSY)),
    Fault("push conflict", "SaveKernel", Refuse(409, _gateway(409, "Conflict", "ABORTED"))),
    Fault("push error code on 200", "SaveKernel", Refuse(200, {"code": 400, "message": "Invalid request"})),
    Fault("push error in body", "SaveKernel", _business_error("Kernel push failed. Please try again.")),
    Fault("push without version", "SaveKernel", Refuse(200, {})),
    Fault("session count reached", "SaveKernel", _business_error("Maximum batch GPU session count of 2 reached.")),
    Fault(
        "quota reached",
        "SaveKernel",
        _business_error("Maximum weekly GPU quota of 30.00 hours reached."),
        times=None,
    ),
    Fault("dataset source invalid", BINDING, InvalidSource()),
    Fault("dataset version stale", BINDING, BindPrevious()),
    Fault("another version pushed", PUSHED, PushAnother()),
    # status
    Fault("status dropped", "GetKernelSessionStatus", DropBefore()),
    Fault("status hangs", "GetKernelSessionStatus", HangBefore()),
    Fault("status breaks for a while", "GetKernelSessionStatus", Refuse(500, _INTERNAL), None, lasting_s=1.0),
    Fault(
        "status gateway error",
        "GetKernelSessionStatus",
        Refuse(502, _gateway(502, "Bad Gateway", "UNAVAILABLE")),
    ),
    Fault("status too many requests", "GetKernelSessionStatus", Refuse(429, _BUSY)),
    Fault(
        "status too many requests, retry after",
        "GetKernelSessionStatus",
        Refuse(429, _BUSY, (("Retry-After", "1"),)),
    ),
    Fault(
        "status error code on 200",
        "GetKernelSessionStatus",
        Refuse(200, {"code": 500, "message": "Something went wrong"}),
    ),
    Fault("status absent", "GetKernelSessionStatus", Alter(omit=("status",))),
    Fault("status unknown", "GetKernelSessionStatus", Alter(put={"status": "HIBERNATING"})),
    Fault("version label ignored", LABEL, IgnoreLabel(), times=None),
    Fault("no runs for a while", START, NoRun(0.5)),
    Fault("no runs ever", START, NoRun(None)),
    # datasets
    Fault("dataset creation dropped before", "CreateDataset", DropBefore()),
    Fault("dataset creation dropped after", "CreateDataset", DropAfter()),
    Fault("dataset creation hangs after", "CreateDataset", HangAfter()),
    Fault(
        "dataset creation error in body",
        "CreateDataset",
        Refuse(200, {"status": "error", "error": "The dataset could not be created."}),
    ),
    Fault("dataset creation too many requests", "CreateDataset", Refuse(429, _BUSY, (("Retry-After", "0"),))),
    Fault("dataset version dropped after", "CreateDatasetVersion", DropAfter()),
    Fault("dataset status breaks", "GetDatasetStatus", Refuse(500, _INTERNAL)),
    Fault("dataset denied for good", PROCESSING, EndProcessing("DENIED")),
    Fault("dataset never ready", PROCESSING, EndProcessing("BLOBS_RECEIVED")),
    Fault("dataset failed", PROCESSING, EndProcessing("FAILED")),
    Fault("dataset files not listed yet", "ListDatasetFiles", Alter(omit=("datasetFiles",))),
    # uploads
    Fault("upload interrupted", UPLOAD, Interrupt()),
    Fault("upload dropped", UPLOAD, DropBefore()),
    Fault("upload expired", UPLOAD_QUERY, Refuse(404, {"message": "Upload session not found"})),
    Fault("upload refused", UPLOAD, Refuse(400, {"message": "Bad Request"})),
    # the machine and the run
    Fault("wrong gpu", SESSION, Machine(("Tesla P100-PCIE-16GB",))),
    Fault("one gpu only", SESSION, Machine(("Tesla T4",))),
    Fault("no gpu", SESSION, Machine(())),
    Fault(
        "out of memory", SESSION, End("ERROR", "Your notebook tried to allocate more memory than is available.")
    ),
    Fault(
        "session time-out",
        SESSION,
        End(
            "CANCEL_ACKNOWLEDGED",
            "Your notebook was stopped because it exceeded the max allowed execution duration.",
        ),
    ),
    Fault("session cancelled", SESSION, End("CANCEL_ACKNOWLEDGED", "")),
    Fault("session stays running", SESSION, StayRunning()),
    Fault("inputs missing", INPUTS, Unmounted()),
    Fault("inputs altered", INPUTS, SpoilInputs(".jsonl")),
    Fault("inputs in the old layout", INPUTS, OldLayout()),
    # outputs
    Fault("output files missing", SAVING, LoseFiles("")),
    Fault("log missing", SAVING, LoseLog()),
    Fault("outputs break", "ListKernelSessionOutput", Refuse(500, _INTERNAL)),
    Fault("outputs too many requests", "ListKernelSessionOutput", Refuse(429, _BUSY, (("Retry-After", "1"),))),
    Fault("download cut", DOWNLOAD, Cut()),
    Fault("download truncated", DOWNLOAD, Shorten()),
    Fault("download altered", DOWNLOAD, FlipByte()),
    Fault("download expired", DOWNLOAD, Refuse(403, _EXPIRED)),
    Fault("download breaks", DOWNLOAD, Refuse(503, _INTERNAL)),
    Fault("download hangs", DOWNLOAD, HangBefore()),
    Fault("log stream dropped", STREAM, Cut()),
    Fault("log stream breaks", STREAM, Refuse(500, _INTERNAL)),
    # the rest
    Fault("quota statistics break", "GetAcceleratorQuotaStatistics", Refuse(500, _INTERNAL)),
    Fault("quota statistics absent", "GetAcceleratorQuotaStatistics", Alter(omit=("gpuQuota",))),
    Fault(
        "quota without a total",
        "GetAcceleratorQuotaStatistics",
        Alter(put={"gpuQuota": {"timeUsed": "3600s"}}),
    ),
    Fault("pull breaks", "GetKernel", Refuse(500, _INTERNAL)),
    Fault("cancel breaks", "CancelKernelSession", Refuse(500, _INTERNAL)),
)

FAULTS: Mapping[str, Fault] = MappingProxyType({entry.name: entry for entry in _CATALOGUE})


def fault(name: str, **changes: Any) -> Fault:
    """The catalogue's fault of this name, with other fields where a test wants them."""
    return replace(FAULTS[name], **changes)
