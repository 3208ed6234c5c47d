"""What can go wrong on the way to Kaggle and back: a class, an exit status and one line for each kind.

`CallError` is what one call met; the driver judges it. The others are what the user reads.
"""

from stages.common.errors import PipelineError


class CallError(Exception):
    """One call of the client failed.

    `kind`: "http" (with `status`), "network", "timeout" (killed by us), "crashed", "disk" (ours is full), or
    "client" (refused by the client itself before or after the call).
    """

    def __init__(
        self, kind: str, message: str, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.status, self.retry_after_s = kind, status, retry_after_s

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later."""
        return self.kind in ("network", "timeout", "crashed") or self.status == 429 or (self.status or 0) >= 500

    @property
    def may_have_acted(self) -> bool:
        """Whether the server may have done what was asked, its answer being lost. 429 says that it has not."""
        return self.is_transient and self.status != 429

    @property
    def is_missing_or_closed(self) -> bool:
        """404, or the 403 that Kaggle gives for what is not there as well as for what is not ready."""
        return self.status in (403, 404)


class CredentialsError(PipelineError):
    """Kaggle does not accept who we say we are."""

    exit_status = 21


class QuotaError(PipelineError):
    """The week's GPU hours do not suffice: stop until they are reset."""

    exit_status = 22


class BusyError(PipelineError):
    """No free session: a run of ours, or of the account, is at work. Later it will go."""

    exit_status = 23


class RefusedError(PipelineError):
    """Kaggle, or the check before it, refuses what we ask: give up until something is changed."""

    exit_status = 24


class UnreachableError(PipelineError):
    """Kaggle has not answered for too long; what runs there goes on."""

    exit_status = 25


class RunFailedError(PipelineError):
    """The run ended without an adapter; the next one starts from its checkpoint, if it left one."""

    exit_status = 26


class RunCancelledError(PipelineError):
    """The run was cancelled."""

    exit_status = 27


class ArtefactError(PipelineError):
    """What came back is not what was trained; nothing of it was accepted."""

    exit_status = 28


class UnfinishedError(PipelineError):
    """We have stopped waiting; the run has not stopped."""

    exit_status = 29
