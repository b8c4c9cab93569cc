"""All benchmarks, one after the other: `make bench`. Each prints its own figures beside its peer's."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run them; 1 where one of them says that a figure is not as promised."""
    status = 0
    for name in (
        "start.py",
        "claim.py",
        "form.py",
        "catalog.py",
        "slurm.py",
        "htcondor.py",
        "htcondor_bindings.py",
        "kubernetes.py",
    ):
        print(f"== {name}", flush=True)
        status |= subprocess.run([sys.executable, str(HERE / name)], check=False).returncode and 1
    return status


if __name__ == "__main__":
    sys.exit(main())
