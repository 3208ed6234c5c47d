"""The tests start from nothing: no home of the user's, no settings of his, and none of each other."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def python(code: str, home: Path, **environment: str) -> subprocess.Popen[str]:
    """A process as pytest starts it: conftest.py is imported before all else."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    given = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": path, **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], env=given, stdout=pipe, stderr=pipe, text=True)


def test_processes_that_import_the_client_at_once_do_not_meet_in_the_home(tmp_path: Path) -> None:
    """On a machine that has never run it: `import kaggle` makes its folder without minding that it is there."""
    processes = [python("import conftest, kaggle; print(kaggle.api.config_dir)", tmp_path) for _ in range(4)]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], answers
    assert len({said for said, _ in answers}) == 4
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_user_do_not_reach_the_tests(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[commit]\n\tgpgsign = true\n")
    stray = {
        "KAGGLE_API_TOKEN": "his",
        "TRAIN_BACKEND": "kaggle",
        "GIT_DIR": "/elsewhere",
        "HF_HOME": "/elsewhere",
    }
    code = (
        "import conftest, os, subprocess;"
        "print(sorted(set(os.environ) & set(%r)), subprocess.getoutput('git config --global --list'))"
    )
    said, errors = python(code % list(stray), tmp_path, **stray).communicate()
    assert said == f"[] safe.directory={TESTS.parent}\n", errors


def test_pip_still_finds_the_users_index(tmp_path: Path) -> None:
    settings = tmp_path / ".config/pip/pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("[global]\nindex-url = https://packages.example.com/simple\n")
    code = "import conftest, subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'config', 'list'])"
    said, errors = python(code, tmp_path).communicate()
    assert "https://packages.example.com/simple" in said, errors


def test_the_home_goes_with_the_process(tmp_path: Path) -> None:
    said, errors = python("import conftest, os; print(os.environ['HOME'])", tmp_path).communicate()
    assert said, errors
    assert not Path(said.strip()).exists()
