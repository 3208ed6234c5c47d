"""A stand-in for llama-server on loopback: its command line, its log line, `POST /completion`, its ways to fail.

Run as a program. Environment: `STAND_IN_ANSWERS` (a JSON file: user command -> answer; a command not in it is
answered with itself, and an answer of more than `n_predict` words is cut off), `STAND_IN_REQUESTS` (a JSONL file
to which each request is appended), `STAND_IN_FAULT`: `load` (ends before it listens), `silent` (never listens),
`die` (ends at the fifth request), `die-midway` (ends within its fifth answer), `refuse` (HTTP 500 always),
`reject` (400), `hiccup` (drops every third connection), `break` (breaks every third answer off), `garble`
(answers without content), `surrogate` (half of a character), `endless` (an answer goes on for ever), `stall`
(answers only what is asked one at a time, without reuse of the prefix).
"""

import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULT = os.environ.get("STAND_IN_FAULT", "")
ANSWERS = os.environ.get("STAND_IN_ANSWERS", "")
REQUESTS = os.environ.get("STAND_IN_REQUESTS", "")
USER_TURN = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n$", re.DOTALL)


class Handler(BaseHTTPRequestHandler):
    """Answers completions, or fails as `STAND_IN_FAULT` says."""

    protocol_version = "HTTP/1.1"
    count = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Handler.lock:
            Handler.count += 1
            count = Handler.count
            if REQUESTS:
                with Path(REQUESTS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(body) + "\n")
        if FAULT == "die" and count == 5:
            die()
        if FAULT == "hiccup" and count % 3 == 0:
            self.close_connection = True
            return
        if FAULT == "refuse":
            self.answer(500, {"error": {"message": "no slot"}})
            return
        if FAULT == "reject":
            self.answer(400, {"error": {"message": "too long"}})
            return
        if FAULT == "stall" and body["cache_prompt"]:
            time.sleep(60)
        if FAULT == "endless":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b" ")
                time.sleep(0.01)
        command = USER_TURN.search(body["prompt"]).group(1)
        known = json.loads(Path(ANSWERS).read_text(encoding="utf-8")) if ANSWERS else {}
        words = known.get(command, command).split(" ")
        limit = body["n_predict"]
        completion = {"content": " ".join(words[:limit]), "stop_type": "limit" if len(words) > limit else "eos"}
        if FAULT == "surrogate":
            completion["content"] = "\ud800"
        dies = FAULT == "die-midway" and count == 5
        broken = dies or (FAULT == "break" and count % 3 == 0)
        self.answer(200, {} if FAULT == "garble" else completion, broken=broken)
        if dies:
            die()

    def answer(self, status: int, value: object, *, broken: bool = False) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if broken else data)
        self.close_connection = self.close_connection or broken

    def log_message(self, *_: object) -> None:
        """Requests are written to `STAND_IN_REQUESTS`, not to the log."""


def die() -> None:
    print("ggml.c:1: out of memory", file=sys.stderr, flush=True)
    os._exit(3)


def main() -> None:
    port = int(sys.argv[sys.argv.index("--port") + 1])
    if FAULT == "load":
        sys.exit("error loading model: not a GGUF")
    if FAULT == "silent":
        time.sleep(60)
    ThreadingHTTPServer.allow_reuse_address = False
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError:
        sys.exit(f"couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {port}")
    print(f"srv main: listening on http://127.0.0.1:{server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
