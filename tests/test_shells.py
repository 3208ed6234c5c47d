"""The real shells as judges: an answer that its shell refuses is a finding, and no answer is ever run."""

from pathlib import Path

import pytest

from stages.validating import shells
from stages.validating.rows import Row
from stages.validating.shells import check_with_shells


def row(line: int, answer: str, shell: str = "bash") -> Row:
    return Row(Path("x.jsonl"), line, "{}", {}, shell, "typed", answer)


def test_bash_refuses_what_it_cannot_read_and_runs_nothing(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    rows = [row(1, "ls | wc -l"), row(2, "for f in *; echo $f; done"), row(3, f"touch {touched}")]

    [finding] = check_with_shells(rows, seed=1)

    assert (finding.line, finding.rule) == (2, "syntax")
    assert "bash itself refuses" in finding.message
    assert not touched.exists()


def test_a_shell_that_is_not_installed_judges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shells.READ_ONLY, "bash", ["a-shell-that-is-not-here", "-n"])
    assert list(check_with_shells([row(1, "for")], seed=1)) == []
