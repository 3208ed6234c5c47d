"""A trainer for tests of the way to Kaggle: started as the real one, it leaves what that leaves, in a moment.

What it writes is made of the digests of what it was given, so that equal adapters mean equal inputs. It stops with
a checkpoint as long as the checkpoint that it finds counts less than STOPS.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

STOPS = 0
HANGS = 0  # seconds after a checkpoint


def digests(paths: list[Path]) -> dict[str, str]:
    """sha256 by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def main() -> None:
    """Train, as it were."""
    run = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if os.environ.get("RANK", "0") != "0":
        return
    base, dataset = Path(run["base"]), Path(run["dataset"])
    given = {
        "base": digests(list(base.iterdir())),
        "dataset": digests([dataset / "train.jsonl", dataset / "valid.jsonl"]),
        "trainer": digests(list(Path(__file__).parent.glob("*.py"))),
    }
    print("train:  50%|#####     | 2/4 examples [00:01, 2.0 examples/s, loss 0.500, 00:01 left]", flush=True)
    time.sleep(0.3)
    checkpoint = Path(run["checkpoints"], "key", "checkpoint.pt")
    done = int(checkpoint.read_text()) if checkpoint.is_file() else 0
    if done < STOPS:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(str(done + 1))
        voucher = {
            "run_id": run["run_id"],
            "progress": (done + 1) / (STOPS + 1),
            "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        }
        checkpoint.with_name("checkpoint.json").write_text(json.dumps(voucher))
        print("train: saved", flush=True)
        time.sleep(HANGS)
        print(f"train: stopped at step {done + 1} with a checkpoint", flush=True)
        return
    adapter, plots = Path(run["adapter"]), Path(run["plots"])
    adapter.mkdir()
    plots.mkdir()
    (adapter / "adapter_model.safetensors").write_text(json.dumps(given))
    (adapter / "digests.json").write_text(json.dumps({"adapter": digests(list(adapter.iterdir())), **given}))
    for name in ("loss", "valid"):
        (plots / f"{name}.csv").write_text("step,loss\n1,0.5\n")
    Path(run["metrics"]).write_text(json.dumps({"examples": 4, "seconds": 0.3}))


if __name__ == "__main__":
    main()
