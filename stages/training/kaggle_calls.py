"""The calls of the `kaggle` client that the driver makes: the only module that imports it, for `kaggle_worker`.

The functions that take an `Api` are the operations of a request. The client prints where it likes, exits when it
likes and asks Kaggle who we are at every import, so that importing this module has effects.
"""

import errno
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from kaggle import api as imported
from kaggle.api.kaggle_api_extended import KaggleApi
from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest
from kagglesdk.kernels.types.kernels_api_service import ApiCancelKernelSessionRequest, ApiGetKernelRequest

from stages.training.redaction import own_secrets, redact

VERSIONS = {"kaggle": "2.2.5", "kagglesdk": "0.1.38"}  # 2.2.4 loses files silently, up and down
_PAGE = 100


class Api(KaggleApi):
    """The client, which also keeps the last answer as it came: the SDK fills a missing status with QUEUED."""

    answer: Any = None

    def get_response_processor(self) -> Callable[[requests.Response], None]:
        check_version = super().get_response_processor()

        def keep(response: requests.Response) -> None:
            check_version(response)
            self.answer = response.json()

        return keep


def signed_in() -> Api:
    """The client with the account that `import kaggle` has found, or a second try to find it.

    Raises:
        requests.RequestException: Kaggle could not be asked.
        SystemExit: Kaggle does not know the credentials.
    """
    for package, version in VERSIONS.items():
        found = importlib.metadata.version(package)
        if found != version:
            raise ValueError(f"{package} {found} is installed, {version} is needed; run `make venv`")
    api = Api()
    api.config_values = dict(imported.config_values)
    if KaggleApi.CONFIG_NAME_AUTH_METHOD not in api.config_values:
        api.authenticate()
    return api


def whoami(api: Api) -> dict[str, Any]:
    return {"username": api.config_values[KaggleApi.CONFIG_NAME_USER]}


def quota(api: Api) -> dict[str, Any]:
    """Seconds of the week's GPU time; `gpu` is None where Kaggle does not say how much there is."""
    answer = api.quota_view()
    gpu = answer.gpu_quota

    def seconds(duration: Any) -> float:
        return duration.total_seconds() if duration is not None else 0.0

    known = gpu is not None and gpu.total_time_allowed is not None
    return {
        "reset": answer.quota_refresh_time and answer.quota_refresh_time.isoformat(),
        "gpu": {
            "used_s": seconds(gpu.time_used),
            "reserved_s": seconds(gpu.time_reserved),
            "total_s": seconds(gpu.total_time_allowed),
        }
        if known
        else None,
    }


def dataset(api: Api, ref: str) -> dict[str, Any]:
    """Its status and, once it is ready, whether it is private and what lies in it: file sizes by name."""
    status = api.dataset_status(ref)
    if status != "ready":
        return {"status": status}
    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = ref.split("/")
    with api.build_kaggle_client() as client:
        private = client.datasets.dataset_api_client.get_dataset(request).is_private
    files: dict[str, int] = {}
    token = None
    while True:
        page = api.dataset_list_files(ref, page_token=token, page_size=_PAGE)
        if page.error_message:
            raise ValueError(page.error_message)
        files |= {file.name: file.total_bytes for file in page.files or []}
        token = page.next_page_token
        if not token:
            return {"status": status, "private": private, "files": files}


def own_datasets(api: Api, search: str) -> list[str]:
    """The refs of the account's datasets that match."""
    return [found.ref for found in api.dataset_list(mine=True, search=search) or [] if found]


def create_dataset(api: Api, folder: str) -> dict[str, Any]:
    answer = api.dataset_create_new(folder, public=False, quiet=True)
    return {"status": answer.status, "error": answer.error, "ref": answer.ref}


def push(api: Api, folder: str, timeout_s: int) -> dict[str, Any]:
    answer = api.kernels_push(folder, timeout=str(timeout_s))
    invalid = {
        "datasets": answer.invalid_dataset_sources,
        "kernels": answer.invalid_kernel_sources,
        "competitions": answer.invalid_competition_sources,
        "models": answer.invalid_model_sources,
    }
    return {
        "error": answer.error,
        "version": answer.version_number or 0,
        "ref": answer.ref,
        "url": answer.url,
        "invalid": {kind: names for kind, names in invalid.items() if names},
    }


def kernel(api: Api, ref: str) -> dict[str, Any]:
    """Of OWNER/SLUG or OWNER/SLUG/N: the source, and the kernel's newest version."""
    owner, slug, version = api.parse_kernel_string(ref)
    request = ApiGetKernelRequest()
    request.user_name, request.kernel_slug = owner, slug
    if version:
        request.version_label = f"v{version}"
    with api.build_kaggle_client() as client:
        answer = client.kernels.kernels_api_client.get_kernel(request)
    return {
        "source": answer.blob.source if answer.blob else "",
        "version": (answer.metadata.current_version_number if answer.metadata else 0) or 0,
    }


def own_kernels(api: Api, search: str) -> list[str]:
    """The refs of the account's kernels that match, the last run first."""
    found = api.kernels_list(mine=True, search=search, page_size=_PAGE, sort_by="dateRun")
    return [kernel.ref for kernel in found or [] if kernel]


def status(api: Api, ref: str) -> dict[str, Any]:
    """The state as Kaggle said it: None where it did not."""
    api.answer = None
    api.kernels_status(ref)
    return {"status": api.answer.get("status"), "failure": api.answer.get("failureMessage", "")}


def log(api: Api, ref: str) -> str:
    return api.kernels_logs(ref)


def output(api: Api, ref: str, folder: str) -> list[str]:
    names, _ = api.kernels_output(ref, folder, force=True, quiet=True, page_size=_PAGE)
    return names


def cancel(api: Api, session: int) -> dict[str, Any]:
    request = ApiCancelKernelSessionRequest()
    request.kernel_session_id = session
    with api.build_kaggle_client() as client:
        return {"error": client.kernels.kernels_api_client.cancel_kernel_session(request).error_message}


def delete(api: Api, ref: str) -> None:
    api.kernels_delete(ref, no_confirm=True)


OPERATIONS: dict[str, Callable[..., Any]] = {
    operation.__name__: operation
    for operation in (
        whoami,
        quota,
        dataset,
        own_datasets,
        create_dataset,
        push,
        kernel,
        own_kernels,
        status,
        log,
        output,
        cancel,
        delete,
    )
}


def describe(error: BaseException) -> dict[str, Any]:
    """What `failures.CallError` is made of; the client hides some HTTP errors behind a guess of its own."""
    if isinstance(error, SystemExit):
        return {"kind": "http", "status": 401, "message": "Kaggle does not know this token or key"}
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, requests.Response):
            return {
                "kind": "http",
                "status": _status(response),
                "message": f"HTTP {response.status_code}: {_message(response)}",
                "retry_after_s": _retry_after(response),
            }
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return {"kind": "disk", "message": f"the disk is full ({cause.filename or 'no name given'})"}
        if isinstance(cause, requests.RequestException | ConnectionError | TimeoutError):
            return {"kind": "network", "message": f"no connection ({type(cause).__name__})"}
        cause = cause.__cause__ or cause.__context__
    return {"kind": "client", "message": f"{type(error).__name__}: {error}"}


def _body(response: requests.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _status(response: requests.Response) -> int:
    """An error may come in the body of a 200."""
    code = _body(response).get("code")
    return code if isinstance(code, int) and response.status_code < 400 else response.status_code


def _message(response: requests.Response) -> str:
    body = _body(response)
    inner = body.get("error")
    message = body.get("message") or (inner.get("message") if isinstance(inner, dict) else inner)
    return str(message or response.reason)


def _retry_after(response: requests.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def follow(ref: str, path: str, reconnect_s: float) -> None:
    """Append the text of a running kernel's log to a file until killed, with every secret taken out of it.

    Each connection replays the log from its start: what was seen is passed over.
    """
    seen = 0
    secrets = own_secrets(os.environ)
    while True:
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                for index, event in enumerate(signed_in().kernels_logs_stream(ref)):
                    if index >= seen:
                        seen = index + 1
                        file.write(redact(event.get("data") or "", secrets))
                        file.flush()
        except (requests.RequestException, ValueError, SystemExit) as error:
            # the log is a comfort; the state, which is polled, decides
            print(describe(error)["message"], file=sys.stderr)
        time.sleep(reconnect_s)
