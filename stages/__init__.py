"""The stages of the DAG: one file a stage, the same name as in dvc.yaml, run as `python -m stages.<stage>`."""
