"""Accounts: who a request comes from, and how much GPU time they have left.

In: the Authorization header of a request. Out: the account, or an answer that refuses.
"""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from .wire import Answer, Request, message, permission_denied

WEEKLY_GPU_HOURS = 30.0


@dataclass
class Account:
    """A user with an access token and a legacy key; `gpu_hours_used` of this week's `gpu_hours`."""

    name: str
    token: str = field(repr=False)
    key: str = field(default="", repr=False)
    user_id: int = 1
    gpu_hours: float = WEEKLY_GPU_HOURS
    gpu_hours_used: float = 0.0
    has_ever_run: bool = False
    _charging: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def quota_reached(self) -> bool:
        return self.gpu_hours_used >= self.gpu_hours

    def charge(self, hours: float) -> None:
        """A GPU session has ended after so long."""
        with self._charging:
            self.gpu_hours_used += hours
            self.has_ever_run = True

    def quota_refusal(self) -> str:
        """What a push is told when the week's hours are used up."""
        return f"Maximum weekly GPU quota of {self.gpu_hours:.2f} hours reached."


@dataclass(frozen=True)
class Caller:
    """An account and the way it proved itself: `bearer` or `basic`."""

    account: Account
    way: str


class Accounts:
    """All accounts of the stand-in."""

    def __init__(self, accounts: list[Account]) -> None:
        self._accounts = list(accounts)

    def add(self, account: Account) -> None:
        """One more user."""
        self._accounts.append(account)

    def identify(self, header: str | None) -> Caller | Answer:
        """The caller of an Authorization header; 401 where there is none."""
        way, _, secret = (header or "").partition(" ")
        for account in self._accounts:
            basic = base64.b64encode(f"{account.name}:{account.key}".encode()).decode()
            if way == "Bearer" and secret == account.token:
                return Caller(account, "bearer")
            if way == "Basic" and account.key and secret == basic:
                return Caller(account, "basic")
        return permission_denied("Unauthenticated", 401)

    def introspect(self, request: Request) -> dict:
        """IntrospectToken; a token nobody has is `active: false`, which protobuf's JSON leaves out."""
        for account in self._accounts:
            if request["token"] == account.token:
                return message(
                    "IntrospectTokenResponse",
                    active=True,
                    username=account.name,
                    userId=account.user_id,
                    scope="resources.admin:*",
                    exp=int(time.time()) + 12 * 3600,
                )
        return message("IntrospectTokenResponse")


def quota_statistics(account: Account, reserved: timedelta) -> dict:
    """GetAcceleratorQuotaStatistics; `reserved` is what the sessions that are active now may still use."""
    total = timedelta(hours=account.gpu_hours)
    gpu = message(
        "ApiAcceleratorQuota",
        # absent when zero, on which the client's own `kaggle quota` stumbles
        timeUsed=timedelta(hours=account.gpu_hours_used) if account.gpu_hours_used else None,
        timeReserved=reserved or None,
        totalTimeAllowed=total,
        minimumTimeAllowed=timedelta(hours=WEEKLY_GPU_HOURS),
        hasEverRun=account.has_ever_run,
    )
    tpu = message("ApiAcceleratorQuota", totalTimeAllowed=timedelta(hours=20))
    return message(
        "ApiGetAcceleratorQuotaStatisticsResponse",
        quotaRefreshTime=_next_saturday(datetime.now(UTC)),
        gpuQuota=gpu,
        tpuQuota=tpu,
    )


def _next_saturday(now: datetime) -> datetime:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=(5 - now.weekday()) % 7 or 7)
