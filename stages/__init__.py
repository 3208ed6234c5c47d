"""The stages of the DAG: one file a stage, the same name as in dvc.yaml, run as `python -m stages.<stage>`."""

import os
import sys

from stages.common import interrupts

# Python looks the module up, and so runs this file, before it gives argv[0] the module's path. Here rather than in
# the stage's main: a stage whose dvc is killed during its first second, while it imports torch, would live on, a
# Ctrl-C in that second would be a traceback, and an edit in it would go unseen.
if sys.argv[0] == "-m":
    _module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    _stage = _module.rpartition(".")[2]
    interrupts.leave_at_once(_stage)

    from stages.common import inputs
    from stages.common.errors import PipelineError
    from stages.common.processes import die_with_dvc, die_with_parent, is_to_outlive_parent, open_standard_streams

    open_standard_streams()
    under_dvc = "DVC_STAGE" in os.environ
    if under_dvc or not is_to_outlive_parent():
        die_with_parent()
    try:
        if under_dvc:
            die_with_dvc()
        if _module == f"stages.{_stage}" and sys.argv[1:] == []:  # with arguments it does something else
            inputs.begin(_stage)
    except PipelineError as error:
        sys.exit(f"{_stage}: error: {error}")
