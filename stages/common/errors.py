"""The one exception a user is meant to read."""


class PipelineError(Exception):
    """A failure that a user can understand and act on.

    Its message is one line that says what went wrong, where, and what to do. It is raised where the facts are
    known and caught once, in `stages.common.cli.run_stage`, which prints it and exits with `exit_status`.
    """

    exit_status: int | None = None
    """None: that which the command has for any error."""
