"""`python -m stages.train submit | wait | status | cancel | fetch`: the steps of a Kaggle run, for people and CI.

A CI job of a few hours submits, a later one waits and fetches; neither needs anything of the other but the same
commit, data and account.
"""

import argparse

from stages.common.cli import run_stage
from stages.training.bundles import CloudRun
from stages.training.cloud import Session, install, train_on_kaggle
from stages.training.patience import say


def submit(run: CloudRun, dry_run: bool) -> None:
    """Make sure that the run is at work, and return."""
    with Session(run) as session:
        if dry_run:
            for line in session.plan():
                say(f"dry run: {line}")
        elif session.submit() is None:
            say("this run is finished; `fetch` puts its result in place")


def wait(run: CloudRun) -> None:
    """Submit if need be, watch the run to its end, and keep its verified result in the cache."""
    with Session(run) as session:
        session.collect()


def status(run: CloudRun) -> None:
    """One line."""
    with Session(run) as session:
        print(session.look())


def cancel(run: CloudRun) -> None:
    """Stop the run."""
    with Session(run) as session:
        say(session.cancel())


def fetch(run: CloudRun) -> None:
    """Wait for the run if need be, and put its result where the stage's outputs are."""
    if run.result.is_dir():
        with Session(run) as session:
            install(run, session.receipt)
    else:
        train_on_kaggle(run)


def main(argv: list[str], describe: object) -> None:
    """Carry out one command on the run that `describe()` gives."""
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for function in (submit, wait, status, cancel, fetch):
        commands.add_parser(function.__name__, help=(function.__doc__ or "").strip())
    commands.choices["submit"].add_argument("--dry-run", action="store_true", help="say what it would do and cost")
    given = parser.parse_args(argv)
    work = {
        "submit": lambda: submit(describe(), given.dry_run),
        "wait": lambda: wait(describe()),
        "status": lambda: status(describe()),
        "cancel": lambda: cancel(describe()),
        "fetch": lambda: fetch(describe()),
    }[given.command]
    # a look and a cancellation must be possible beside a run that waits, so they do not share its lock
    run_stage("train" if given.command in ("submit", "wait", "fetch") else f"train-{given.command}", work)
