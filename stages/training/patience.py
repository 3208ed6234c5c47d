"""Waiting: for a server that is overloaded or away, and between two looks at it."""

import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from stages.training.failures import CallError, CredentialsError, UnreachableError
from stages.training.settings import KaggleSettings

Result = TypeVar("Result")

_LONGEST_RETRY_AFTER_S = 3600.0


def say(message: str) -> None:
    """One line for whoever watches."""
    print(f"train: kaggle: {message}", file=sys.stderr, flush=True)


def persist(
    attempt: Callable[[], Result], what: str, settings: KaggleSettings, call_takes_s: float = 0.0
) -> Result:
    """Make a call that changes nothing, again and again until it gets an answer.

    Waits double each time, with jitter, so that many clients do not come back at once; 429's Retry-After rules.

    Raises:
        CallError: an answer that will not change by waiting.
        CredentialsError: 401.
        UnreachableError: no answer for `unreachable_s` and as long as one call may take.
    """
    began = time.monotonic()
    longest = settings.backoff_first_s
    while True:
        try:
            return attempt()
        except CallError as error:
            if error.status == 401:
                raise credentials_refused(error) from None
            if not error.is_transient:
                raise
            if time.monotonic() - began > settings.unreachable_s + call_takes_s:
                raise UnreachableError(
                    f"{what}: no answer from Kaggle for {settings.unreachable_s / 3600:.1f} h ({error}); "
                    "what runs there goes on: run again to go on from here"
                ) from None
            wait_s = back_off(error, longest)
            say(f"{what}: {error}; again in {wait_s:.0f} s")
            longest = min(longest * 2, settings.backoff_longest_s)


def back_off(error: CallError, longest_s: float) -> float:
    """Sleep as long as the server asks, or a random part of `longest_s`; returns the seconds slept."""
    if error.retry_after_s is not None:
        wait_s = min(error.retry_after_s, _LONGEST_RETRY_AFTER_S)
    else:
        wait_s = random.uniform(0.5, 1.0) * longest_s
    time.sleep(wait_s)
    return wait_s


def credentials_refused(error: CallError) -> CredentialsError:
    """What the user reads on 401."""
    return CredentialsError(
        f"Kaggle refuses the credentials ({error}); make a new token at kaggle.com/settings/api "
        "and set KAGGLE_API_TOKEN to it"
    )
