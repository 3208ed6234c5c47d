"""A Hugging Face Hub on loopback: what `snapshot_download` and `verify_repo_checksums` ask of one repository."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class StandInHub:
    """One repository at one revision; `altered` files come with a flipped byte, and if `down`, all is a 503."""

    repo: str
    revision: str
    folder: Path
    altered: set[str] = field(default_factory=set)
    down: bool = False
    url: str = ""

    def tree(self) -> list[dict]:
        """The listing of /tree: git's blob hash for small files, the content's sha256 for large ones (LFS)."""
        entries = []
        for path in sorted(self.folder.iterdir()):
            content = path.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"type": "file", "path": path.name, "size": len(content), "oid": blob}
            if path.suffix == ".safetensors":
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def content(self, name: str) -> bytes:
        """What a download gets."""
        content = (self.folder / name).read_bytes()
        if name in self.altered:
            content = bytes([content[0] ^ 1]) + content[1:]
        return content


@contextmanager
def serve(hub: StandInHub) -> Iterator[StandInHub]:
    """Serve `hub` on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if hub.down:
                return self.reply(503, b"", {}, body)
            if path == f"/api/models/{hub.repo}/revision/{hub.revision}":
                siblings = [{"rfilename": entry["path"]} for entry in hub.tree()]
                info = {"id": hub.repo, "sha": hub.revision, "private": False, "tags": [], "siblings": siblings}
                return self.reply(200, json.dumps(info).encode(), {}, body)
            if path == f"/api/models/{hub.repo}/tree/{hub.revision}":
                return self.reply(200, json.dumps(hub.tree()).encode(), {}, body)
            prefix = f"/{hub.repo}/resolve/{hub.revision}/"
            for entry in hub.tree():
                if path == prefix + entry["path"]:
                    etag = entry.get("lfs", entry)["oid"]
                    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.revision}
                    return self.reply(200, hub.content(entry["path"]), headers, body)
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, body)

        def reply(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
