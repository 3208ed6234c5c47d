"""Uploaded files: announced by StartBlobUpload, sent by resumable PUTs, named by a token from then on."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .accounts import Caller
from .effects import Interrupt
from .faults import Fault, Faults
from .wire import Request, message

_SPAN = re.compile(r"bytes (?:\*|(\d+)-(\d+))/(\d+)")


@dataclass(frozen=True)
class Blob:
    """A file of `length` bytes that `owner` sends to `path`."""

    token: str
    owner: str
    name: str
    length: int
    path: Path

    @property
    def received(self) -> int:
        return self.path.stat().st_size

    @property
    def whole(self) -> bool:
        return self.received == self.length


class Blobs:
    """All uploads. An upload's URL holds a secret of its own, as a signed URL does."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.url = ""
        self._folder = folder
        self._faults = faults
        self._by_token: dict[str, Blob] = {}
        self._by_upload: dict[str, Blob] = {}
        folder.mkdir(parents=True)

    def start_blob_upload(self, caller: Caller, request: Request) -> dict:
        """StartBlobUpload."""
        token, upload = secrets.token_hex(16), secrets.token_hex(16)
        blob = Blob(token, caller.account.name, request["name"], request["contentLength"], self._folder / token)
        blob.path.touch()
        self._by_token[token] = self._by_upload[upload] = blob
        create_url = f"{self.url}/upload/{upload}"
        return message("ApiStartBlobUploadResponse", token=token, createUrl=create_url)

    def find(self, owner: str, token: str) -> Blob | None:
        """The whole file behind a token, if it is this owner's."""
        blob = self._by_token.get(token)
        return blob if blob and blob.owner == owner and blob.whole else None

    def receive(
        self, upload: str, content_range: str | None, body: Iterator[bytes], fault: Fault | None
    ) -> tuple[int, dict[str, str]]:
        """Take the bytes of one PUT; returns its status and headers (200, 308 with Range, 404 or 503)."""
        blob = self._by_upload.get(upload)
        if blob is None:
            return 404, {}
        span = _SPAN.fullmatch(content_range) if content_range else None
        if content_range and (span is None or int(span[3]) != blob.length):
            return 400, {}
        if span is None or span[1] is not None:
            start = int(span[1]) if span else 0
            if start > blob.received:
                return 400, {}
            keep = (blob.length - start) // 2 if fault and isinstance(fault.effect, Interrupt) else blob.length
            _write(blob.path, start, body, keep)
        if fault and isinstance(fault.effect, Interrupt):
            return 503, {}
        if blob.whole:
            return 200, {}
        return 308, {"Range": f"bytes=0-{blob.received - 1}"} if blob.received else {}


def _write(path: Path, start: int, body: Iterator[bytes], keep: int) -> None:
    with path.open("r+b") as file:
        file.truncate(start)
        file.seek(start)
        for piece in body:
            file.write(piece[:keep])
            keep -= min(keep, len(piece))
