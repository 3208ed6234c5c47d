"""`nvidia-smi` of a session without real GPUs: `-L`, `--query-gpu=...`, or a short table.

The GPUs' names are read from `gpus.json` beside this file. With none it fails as the real one does without a
driver.
"""

import argparse
import json
import sys
from pathlib import Path

GPUS = {
    "Tesla T4": {"memory.total": 15360, "compute_cap": "7.5"},
    "Tesla P100-PCIE-16GB": {"memory.total": 16384, "compute_cap": "6.0"},
}
UNITS = {"memory.total": " MiB", "memory.free": " MiB", "memory.used": " MiB", "utilization.gpu": " %"}


def facts(index: int, name: str) -> dict[str, object]:
    """What can be queried of a GPU."""
    total = GPUS[name]["memory.total"]
    return {
        **GPUS[name],
        "index": index,
        "name": name,
        "gpu_name": name,
        "uuid": f"GPU-00000000-0000-0000-0000-{index:012}",
        "driver_version": "570.172.08",
        "memory.used": 0,
        "memory.free": total,
        "utilization.gpu": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="nvidia-smi")
    parser.add_argument("-L", "--list-gpus", action="store_true")
    parser.add_argument("--query-gpu")
    parser.add_argument("--format", default="csv")
    options = parser.parse_args()
    names = json.loads((Path(__file__).parent / "gpus.json").read_text(encoding="utf-8"))
    if not names:
        print("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
        sys.exit(9)
    gpus = [facts(index, name) for index, name in enumerate(names)]
    if options.query_gpu:
        columns, style = options.query_gpu.split(","), options.format.split(",")
        unit = {} if "nounits" in style else UNITS
        if "noheader" not in style:
            print(", ".join(f"{c} [{unit[c].strip()}]" if c in unit else c for c in columns))
        for gpu in gpus:
            print(", ".join(f"{gpu[c]}{unit.get(c, '')}" for c in columns))
        return
    for gpu in gpus:
        print(f"GPU {gpu['index']}: {gpu['name']} (UUID: {gpu['uuid']})")


if __name__ == "__main__":
    main()
