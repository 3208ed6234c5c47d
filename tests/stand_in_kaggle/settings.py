"""How fast and how generous the stand-in is; real Kaggle's figures beside them."""

from __future__ import annotations

from dataclasses import dataclass

TAGS = frozenset({"nlp", "text", "gpu"})  # those the stand-in knows; all others come back as invalid


@dataclass(frozen=True)
class Delays:
    """Real seconds, small enough for tests."""

    dataset_denied_s: float = 0.05  # a new dataset answers 403 to its own owner (15 min seen)
    dataset_processing_s: float = 0.1  # then it goes through its states
    run_made_s: float = 0.0  # after a push, `No runs found for this kernel`
    queue_s: float = 0.05
    cancel_s: float = 0.05  # CANCEL_REQUESTED, until the session stops
    save_s: float = 0.0  # /kaggle/working is kept; the run still counts as running (110 s/GB seen)
    slot_release_s: float = 0.0  # a session's slot is free this long after its end
    url_life_s: float = 60.0  # a signed output URL


@dataclass(frozen=True)
class Limits:
    """What an account may use. `second_s`: real seconds that pass for one second of Kaggle's session time."""

    gpu_sessions: int = 2
    cpu_sessions: int = 5
    session_s: int = 12 * 3600
    second_s: float = 1.0
    source_bytes: int = 1_000_000
    dataset_files: int = 50
