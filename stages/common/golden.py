"""The golden cases: what people really type wrong, written and reviewed by hand, never trained on.

In: `tests/inference_test_cases.json`, a list of {shell, input, accept: all right answers, the best first, family}.
"""

from dataclasses import dataclass

from stages.common.chat import SHELLS
from stages.common.errors import PipelineError
from stages.common.files import FROM_GIT, read_json
from stages.common.paths import GOLDEN
from stages.common.words import blanks_once


@dataclass(frozen=True)
class GoldenCase:
    """One typed line, and all that would be right."""

    shell: str
    typed: str
    accept: tuple[str, ...]
    family: str


def golden_cases() -> list[GoldenCase]:
    """All cases.

    Raises:
        PipelineError: the file is missing or malformed; it names the case.
    """
    cases = []
    for number, entry in enumerate(read_json(GOLDEN, remedy=FROM_GIT), start=1):
        match entry:
            case {
                "shell": str(shell),
                "input": str(typed),
                "accept": [str(), *_] as accept,
                "family": str(family),
            } if shell in SHELLS and all(isinstance(answer, str) for answer in accept):
                cases.append(GoldenCase(shell, typed, tuple(accept), family))
            case _:
                raise PipelineError(
                    f"{GOLDEN}: case {number}: not a shell, an input, answers and a family: {entry}"
                )
    return cases


def golden_inputs() -> frozenset[str]:
    """The typed line of every case, blanks counted once: what must not be trained on, in whatever shell."""
    return frozenset(blanks_once(case.typed) for case in golden_cases())
