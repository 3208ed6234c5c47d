"""The stages of the DAG: one file a stage, the same name as in dvc.yaml, run as `python -m stages.<stage>`."""

import sys

from stages.common.processes import die_with_parent

# Python looks the module up, and so runs this file, before it gives argv[0] the module's path. Here rather than in
# the stage's main: a stage whose dvc is killed during its first second, while it imports torch, would live on.
if sys.argv[0] == "-m":
    die_with_parent()
