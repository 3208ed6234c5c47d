"""The settings that tests run with: those of params.yaml, but for what a user is invited to change there."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

OWN: dict[str, Any] = {
    "model_size": "135m",
    "task": "correct",
    "seed": 20261124,
    "backend": "local",
    "data": {
        "rows": 150000,
        "shells": {"bash": 0.35, "zsh": 0.25, "powershell": 0.2, "cmd": 0.12, "fish": 0.05, "tcsh": 0.03},
    },
    "quantize": {"quants": ["Q4_K_M"], "imatrix_rows": 300},
    "evaluate": {"slots": 8},
    "gate": {"exact_match_min": 0.85},
}
"""What tests count on, so that an edited params.yaml fails none of them."""


class _Indented(yaml.SafeDumper):
    """Writes lists as params.yaml has them, indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def write_params(folder: Path, **changes: Any) -> None:
    """Write params.yaml into `folder`: the repository's, with `OWN` and then `changes` laid over it.

    `write_params(tmp_path, model_size="tiny", data={"rows": 6000})`
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for own in (OWN, changes):
        for key, value in own.items():
            params[key] = {**params[key], **value} if isinstance(value, dict) else value
    text = yaml.dump(params, Dumper=_Indented, sort_keys=False, allow_unicode=True)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
