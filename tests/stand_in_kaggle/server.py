"""The stand-in over HTTP: RPCs, uploads, signed downloads and the log stream, with the faults that strike them.

The client finds it as its proxy (`http_proxy`), so request lines come in absolute form, `POST http://localhost/...`;
the URLs that the stand-in mints are on 127.0.0.1 and come in origin form.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from .accounts import Caller
from .effects import (
    Alter,
    Cut,
    DropAfter,
    DropBefore,
    FlipByte,
    HangAfter,
    HangBefore,
    Refuse,
    RefuseAfter,
    Shorten,
)
from .faults import DOWNLOAD, STREAM, UPLOAD, UPLOAD_QUERY, Fault
from .record import Call
from .sessions import Session
from .stand_in import StandInKaggle
from .wire import Answer

_API = "/api/v1/"
_LOG_STREAM = f"{_API}kernels/logs/stream/"
_PIECE = 1 << 20


@dataclass
class _Exchange:
    """The request in hand: what the record will say of it, and whether it has been said."""

    begin: float
    rpc: str
    path: str
    fault: Fault | None
    recorded: bool = False


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    served: StandInKaggle

    def setup(self) -> None:
        super().setup()
        self.kaggle = self.served  # that of this connection, though another may be served by the time it ends

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = b"".join(self._body())
        service, _, method = path.removeprefix(_API).partition("/")
        with self._exchange(method, path) as exchange:
            if self._struck_before(exchange):
                return
            given = json.loads(body or b"{}")
            if method == "GetKernelSessionLogsStream":
                return self._send_log(exchange, given)
            answer = self.kaggle.answer(service, method, self.headers["Authorization"], given)
            self._finish(exchange, answer)

    def do_PUT(self) -> None:
        body = self._body()
        query = (self.headers["Content-Range"] or "").startswith("bytes */")
        with self._exchange(UPLOAD_QUERY if query else UPLOAD, "/upload/") as exchange:
            if self._struck_before(exchange):
                deque(body, maxlen=0)  # so that the next request on this connection begins where it begins
                return
            upload = urlsplit(self.path).path.removeprefix("/upload/")
            status, headers = self.kaggle.blobs.receive(
                upload, self.headers["Content-Range"], body, exchange.fault
            )
            self._send(exchange, status, b"", headers)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith(_LOG_STREAM):
            owner, _, slug = url.path.removeprefix(_LOG_STREAM).partition("/")
            label = parse_qs(url.query).get("versionLabel", [""])[0]
            with self._exchange(STREAM, url.path) as exchange:
                if not self._struck_before(exchange):
                    self._send_log(exchange, {"userName": owner, "kernelSlug": slug, "versionLabel": label})
            return
        with self._exchange(DOWNLOAD, "/signed/") as exchange:
            if self._struck_before(exchange):
                return
            path = self.kaggle.urls.resolve(url.path.removeprefix("/signed/"))
            if path is None:
                self._send(exchange, 403, b"Request has expired", {"Content-Type": "text/plain"})
            else:
                self._send_file(exchange, path)

    def do_CONNECT(self) -> None:
        """A tunnel: something calls a host that is not the stand-in's, most likely production."""
        with self._exchange("CONNECT", self.path) as exchange:
            self.kaggle.failures.append(f"the client called {self.path}")
            self._send(exchange, 502, b"", {})
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Requests are in the record, not on standard error."""

    # --- faults
    def _struck_before(self, exchange: _Exchange) -> bool:
        """Whether a fault ends the request before anything is done."""
        effect = exchange.fault.effect if exchange.fault else None
        if isinstance(effect, Refuse):
            self._send_json(exchange, Answer(effect.status, dict(effect.body), effect.headers))
            return True
        if isinstance(effect, HangBefore):
            self.kaggle.faults.hold(exchange.fault)
        self.close_connection = isinstance(effect, DropBefore | HangBefore)
        return self.close_connection

    def _finish(self, exchange: _Exchange, answer: Answer) -> None:
        """Send an RPC's answer, or what a fault makes of it."""
        match exchange.fault.effect if exchange.fault else None:
            case DropAfter():
                self.close_connection = True
            case HangAfter():
                self.kaggle.faults.hold(exchange.fault)
                self.close_connection = True
            case RefuseAfter(status, body):
                self._send_json(exchange, Answer(status, dict(body)))
            case Alter(put, omit) if answer.status == 200:
                kept = {name: value for name, value in answer.body.items() if name not in omit}
                self._send_json(exchange, Answer(200, {**kept, **put}))
            case _:
                self._send_json(exchange, answer)

    # --- answers
    def _send_json(self, exchange: _Exchange, answer: Answer) -> None:
        headers = {"Content-Type": "application/json", **dict(answer.headers)}
        self._send(exchange, answer.status, json.dumps(answer.body).encode(), headers)

    def _send_file(self, exchange: _Exchange, path: Path) -> None:
        effect = exchange.fault.effect if exchange.fault else None
        content = path.read_bytes()
        if isinstance(effect, Shorten):
            content = content[: len(content) // 2]
        if isinstance(effect, FlipByte):
            content = bytes([content[0] ^ 1]) + content[1:]
        changed = path.stat().st_mtime
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": f'"{len(content)}-{changed}"',
            "Last-Modified": formatdate(changed, usegmt=True),
        }
        start = self._range_start(headers["ETag"])
        body = content[start:]
        headers["Content-Length"] = str(len(body))
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        sent = body[: len(body) // 2] if isinstance(effect, Cut) else body
        self._send(exchange, 200 if start is None else 206, sent, headers)
        self.close_connection = len(sent) < len(body)

    def _send_log(self, exchange: _Exchange, request: Mapping[str, object]) -> None:
        session = self.kaggle.log_session(self.headers["Authorization"], dict(request))
        if isinstance(session, Answer):
            self._send_json(exchange, session)
        elif session.ended:
            self._send(exchange, 200, session.log().encode(), {"Content-Type": "application/json"})
        else:
            self._stream(exchange, session)

    def _stream(self, exchange: _Exchange, session: Session) -> None:
        """Server-sent events, from the log's beginning to its end."""
        self._remember(exchange, 200)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for entry in session.follow():
            self._send_chunk(f"data: {json.dumps(entry)}\n\n".encode())
            if exchange.fault and isinstance(exchange.fault.effect, Cut):
                self.close_connection = True
                return
        self._send_chunk(b"data: END_OF_LOG\n\n")
        self._send_chunk(b"")

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send(self, exchange: _Exchange, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self._remember(exchange, status)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    # --- requests
    def _range_start(self, etag: str) -> int | None:
        """Where the client wants to go on with this very file; None: it wants it whole."""
        asked, expected = self.headers["Range"], self.headers["If-Range"]
        return int(asked.removeprefix("bytes=").split("-")[0]) if asked and expected in (None, etag) else None

    def _body(self) -> Iterator[bytes]:
        """The request's body in pieces, by Content-Length or chunked."""
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers["Content-Length"] or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                return
            left -= len(piece)
            yield piece

    @contextmanager
    def _exchange(self, rpc: str, path: str) -> Iterator[_Exchange]:
        """Take the fault that strikes this request; a request that gets no answer is recorded when it is over."""
        exchange = _Exchange(time.monotonic(), rpc, path, self.kaggle.faults.take(rpc))
        try:
            yield exchange
        except ConnectionError:  # the client has gone; that is its right
            self.close_connection = True
        finally:
            self._remember(exchange, None)

    def _remember(self, exchange: _Exchange, status: int | None) -> None:
        """Record a request, once, and before its answer: who has the answer finds the request in the record."""
        if exchange.recorded:
            return
        exchange.recorded = True
        caller = self.kaggle.accounts.identify(self.headers["Authorization"])
        way, account = (caller.way, caller.account.name) if isinstance(caller, Caller) else ("none", "")
        fault = exchange.fault.name if exchange.fault else ""
        call = Call(exchange.begin, self.command, exchange.path, exchange.rpc, way, account, status, fault)
        self.kaggle.record.add(call)


@dataclass(frozen=True)
class Address:
    """A loopback port at which one stand-in after the other can be served, so that a client can stay."""

    url: str
    _handler: type[_Handler]

    @contextmanager
    def serve(self, kaggle: StandInKaggle) -> Iterator[StandInKaggle]:
        """Serve here. At the end every run is stopped; raises if the stand-in itself had failed."""
        self._handler.served = kaggle
        kaggle.serve_at(self.url)
        try:
            yield kaggle
        finally:
            kaggle.close()
        if kaggle.failures:
            raise AssertionError(f"the stand-in failed: {kaggle.failures}")


@contextmanager
def listen() -> Iterator[Address]:
    """Listen on a free port; nothing is to be asked before something is served there."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="stand-in-kaggle", daemon=True)
    thread.start()
    try:
        yield Address(f"http://127.0.0.1:{server.server_port}", handler)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve(kaggle: StandInKaggle) -> Iterator[StandInKaggle]:
    """Serve one stand-in on a port of its own."""
    with listen() as address, address.serve(kaggle):
        yield kaggle
