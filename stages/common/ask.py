"""Ask the model in hand to correct one line, as the clients do.

    python -m stages.common.ask 'gti stauts'
    python -m stages.common.ask --shell powershell 'Get-Porcess'

In: the first quant of the size that params.yaml names, made by `dvc repro`. Out: the answer on standard output.
"""

import argparse
from pathlib import Path

from stages.common.chat import DECODING, SHELLS, Decoding, render_prompt
from stages.common.cli import run_stage
from stages.common.config import model_paths, task
from stages.common.errors import PipelineError
from stages.common.files import read_json_object
from stages.common.llama_cpp import tool
from stages.common.paths import CACHE
from stages.common.server import serve

_CONTEXT = 2048
_LONGEST_BYTES = 1500  # a token is a byte at least, so with the prompt and the answer it fits into the context


def ask(executable: Path, model: Path, prompt: str, decoding: Decoding) -> str:
    """What the model answers. Raises `PipelineError` where the server fails."""
    log = CACHE / "logs" / "ask.log"
    with serve(executable, model, slots=1, context=_CONTEXT, log=log) as server:
        return server.complete(prompt, decoding).text.rstrip()


def require_askable(line: str) -> None:
    """Refuse what no client could ask.

    Raises:
        PipelineError: it is not UTF-8, or too long.
    """
    try:
        size = len(line.encode())
    except UnicodeEncodeError:  # Python gives a byte of an argument that is no UTF-8 as half a surrogate pair
        raise PipelineError("the line is not UTF-8; type it in a terminal that is") from None
    if size > _LONGEST_BYTES:
        raise PipelineError(f"the line has {size} bytes; ask at most {_LONGEST_BYTES}")


def main() -> None:
    """Print the answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shell", choices=SHELLS, default="bash")
    parser.add_argument("line", help="the mistyped line, quoted")
    asked = parser.parse_args()
    require_askable(asked.line)
    quants = model_paths().quants
    model = quants / next(iter(read_json_object(quants / "quants.json").values()))
    prompt = render_prompt(asked.shell, asked.line, task())
    print(ask(tool("llama-server"), model, prompt, DECODING[task()]))


if __name__ == "__main__":
    run_stage("ask", main)
