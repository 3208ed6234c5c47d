"""The rooms of the stage `train`: where training runs. Nothing here shapes what is trained (see dvc.yaml)."""
