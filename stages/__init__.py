"""The stages of the DAG: one file a stage, the same name as in dvc.yaml, run as `python -m stages.<stage>`."""

import os
import sys

from stages.common.processes import die_with_parent, is_orphan

# Python looks the module up, and so runs this file, before it gives argv[0] the module's path. Here rather than in
# the stage's main: a stage whose dvc is killed during its first second, while it imports torch, would live on.
if sys.argv[0] == "-m":
    die_with_parent()
    if "DVC_STAGE" in os.environ and is_orphan():  # killed before the line above: nobody would end this stage
        sys.exit("dvc was killed before its stage began; run it again")
