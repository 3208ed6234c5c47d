"""What pip could not fetch, and why: an index that does not answer is not a version that does not exist."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common.downloads import PROGRESS_EVERY_S, Progress, pip_download, run_pip, why_pip_failed
from stages.common.errors import PipelineError


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which pip is asked for a package, with none of this machine's places to find it in."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of an index on loopback that has version 1.0 of `toy`."""
    page = tmp_path / "served/simple/toy/index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="toy-1.0-py3-none-any.whl">toy-1.0-py3-none-any.whl</a>')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    def handler(*arguments: object) -> Quiet:
        return Quiet(*arguments, directory=str(tmp_path / "served"))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(version: str = "2.0") -> str:
    with pytest.raises(PipelineError) as caught:
        pip_download("toy", version, "0" * 64)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/simple", "https://no-such-host.invalid/simple"])
def test_an_index_that_cannot_be_reached_is_named_as_the_cause(
    asked: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", address)
    said = refusal()
    assert said.startswith("fetching toy 2.0 from PyPI: the package index could not be reached (")
    assert "check the network, the proxy (https_proxy) and pip's index" in said


def test_a_version_that_does_not_exist_is_named_with_those_that_do(
    asked: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index)
    assert "pip's index has no toy==2.0 for Python 3." in (said := refusal())
    assert "only 1.0; look at" in said
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "only 1.0; one of its indexes could not be reached (Connection refused)" in refusal()


def test_a_package_that_no_index_has_is_not_a_matter_of_the_network(
    asked: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.replace("/simple", "/empty"))
    assert "has no toy==2.0" in (said := refusal())
    assert "no version; look at" in said


def test_anything_else_is_reported_in_pips_own_words(asked: Path) -> None:
    with pytest.raises(PipelineError, match=r"unpacking: pip failed: .*no-such-file"):
        run_pip("install", "--no-index", "./no-such-file.whl", what="unpacking")


@pytest.mark.parametrize(
    "output",
    [
        "WARNING: Could not fetch URL x: connection broken by OSError(28, 'No space left on device')\nERROR: No",
        "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device\n",
    ],
)
def test_a_full_disk_is_no_matter_of_the_network(output: str) -> None:
    assert why_pip_failed(output) == "the disk is full; free 2 GB and run again"


def test_a_long_installation_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("installing all")
    shown.read("Collecting a==1 (from -r requirements.txt (line 1))\n")
    shown.read("  Downloading a-1-py3-none-any.whl (11 kB)\n")
    assert capsys.readouterr().out == ""  # it has only begun
    shown._shown -= PROGRESS_EVERY_S
    shown.read("Collecting b==1 (from a)\n")
    assert capsys.readouterr().out == "installing all: 2 packages found, 0 s\n"
    shown.read("Installing collected packages: b, a\n")
    assert capsys.readouterr().out == "installing all: unpacking 2 packages, 0 s\n"


def test_an_index_that_does_not_answer_is_no_silence(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("installing all")
    shown._shown -= PROGRESS_EVERY_S
    shown.read("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'\n")
    assert capsys.readouterr().out == "installing all: the package index does not answer, trying again, 0 s\n"
