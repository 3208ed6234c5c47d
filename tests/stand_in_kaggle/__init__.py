"""A Kaggle on loopback: a real HTTP server that the unpatched `kaggle` client talks to, and that runs notebooks.

`serve(StandInKaggle(folder, accounts=[alice()]))` serves one; `client_environment` points the client at it;
`fault` gives what shall go wrong. Where nobody has measured how Kaggle behaves, the stand-in takes the way that is
harder for a driver:

- a dataset that still answers 403 is not in ListDatasets either, though its slug is taken;
- an active session reserves all the time that it may still use;
- deleting a kernel drops its waiting runs, but one that runs goes on, holds its slot and costs quota;
- a run that waits has no log stream, 404 as for one that is not there;
- a kernel's or a dataset's absence and its being somebody else's are the same 403.
"""

from .accounts import Account
from .catalogue import FAULTS, fault
from .client import Client, Refused, client
from .faults import Fault, Faults
from .server import listen, serve
from .settings import Delays, Limits
from .stand_in import StandInKaggle, alice

__all__ = [
    "FAULTS",
    "Account",
    "Client",
    "Delays",
    "Fault",
    "Faults",
    "Limits",
    "Refused",
    "StandInKaggle",
    "alice",
    "client",
    "fault",
    "listen",
    "serve",
]
