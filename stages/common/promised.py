"""The lines that the clients' documentation and tests show: every released model answers all of them right.

In: data/promised.yaml. Stage `train` puts the lines among its rows, since they are a contract and no sample of
what the model can do; stage `evaluate` asks them all, and the figure is `promised_exact_match`.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.common.config import Shell
from stages.common.errors import PipelineError
from stages.common.files import read_yaml
from stages.common.paths import PROMISED


class Line(BaseModel):
    """`{typed: gti status, answer: git status}`; `shells` where the line is shown for other ones than most are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    typed: str
    answer: str
    shells: Annotated[list[Shell] | None, Field(min_length=1)] = None


class Promises(BaseModel):
    """data/promised.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shells: Annotated[list[Shell], Field(min_length=1)]
    seen: Annotated[int, Field(ge=1)]
    lines: Annotated[list[Line], Field(min_length=1)]

    @model_validator(mode="after")
    def _promises_one_answer(self) -> "Promises":
        answers: dict[tuple[str, str], str] = {}
        for shell, line in self.in_shells():
            if answers.setdefault((shell, line.typed), line.answer) != line.answer:
                raise ValueError(f"{line.typed!r} has two answers in {shell}; remove one")
        return self

    def in_shells(self) -> Iterator[tuple[str, Line]]:
        """Every line in each shell in which it is promised, with the shell's name."""
        for line in self.lines:
            for shell in line.shells or self.shells:
                yield shell, line


def promises() -> Promises:
    """Read data/promised.yaml.

    Raises:
        PipelineError: it is missing, is no YAML or has another shape.
    """
    try:
        return Promises.model_validate(read_yaml(PROMISED))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "lines"
        raise PipelineError(f"{PROMISED}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
