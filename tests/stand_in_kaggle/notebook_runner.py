"""Execute a notebook as Kaggle does: cell by cell, in a Jupyter kernel of its own, to the first error.

In: the notebook's path; the working directory and the environment are the session's. Out: on standard output a
line of JSON for each piece of output, `{"stream_name", "time", "data"}`; exit code 0, or 1 if a cell failed or
the notebook cannot be run.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError


class LoggedNotebook(NotebookClient):
    """A notebook whose output is written to `log` as it comes."""

    def __init__(self, notebook: nbformat.NotebookNode, log: IO[str], **options: Any) -> None:
        super().__init__(notebook, **options)
        self.file = log
        self.begin = time.monotonic()

    def write(self, stream: str, text: str) -> None:
        entry = {"stream_name": stream, "time": round(time.monotonic() - self.begin, 6), "data": text}
        print(json.dumps(entry), file=self.file, flush=True)

    def output(self, outs: list, msg: dict, display_id: str, cell_index: int) -> Any:
        content = msg["content"]
        if msg["msg_type"] == "stream":
            self.write(content["name"], content["text"])
        elif msg["msg_type"] == "error":
            self.write("stderr", "\n".join(content["traceback"]) + "\n")
        elif "text/plain" in content.get("data", {}):
            self.write("stdout", content["data"]["text/plain"] + "\n")
        return super().output(outs, msg, display_id, cell_index)


def main(path: str) -> None:
    # the Jupyter kernel inherits standard output and must not write between the lines of JSON
    log = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    notebook = nbformat.reads(Path(path).read_text(encoding="utf-8"), as_version=4)
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    runner = LoggedNotebook(notebook, log, kernel_name=kernel or "")
    if not kernel:  # papermill's words (#689)
        runner.write("stderr", "ValueError: No kernel name found in notebook and no override provided.\n")
        sys.exit(1)
    try:
        runner.execute()
    except CellExecutionError:
        sys.exit(1)
    except DeadKernelError as error:
        runner.write("stderr", f"nbclient.exceptions.DeadKernelError: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
