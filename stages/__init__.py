"""The stages of the DAG: one file a stage, the same name as in dvc.yaml, run as `python -m stages.<stage>`."""

import os
import sys

from stages.common.errors import PipelineError
from stages.common.processes import die_with_dvc, die_with_parent

# Python looks the module up, and so runs this file, before it gives argv[0] the module's path. Here rather than in
# the stage's main: a stage whose dvc is killed during its first second, while it imports torch, would live on.
if sys.argv[0] == "-m":
    die_with_parent()
    if "DVC_STAGE" in os.environ:
        try:
            die_with_dvc()
        except PipelineError as error:
            sys.exit(f"{os.environ['DVC_STAGE']}: error: {error}")
