"""HEPSpawner and batchspawner's SlurmSpawner side by side on a real Slurm: commands, starts, restarts of the hub.

    python benchmarks/slurm.py [lab | storm | commands | restart]… [--servers 60] [--more 600] [--peer 200]
        [--rounds 3] [--json]

Only for root; how, is said in batch.py.
"""

import sys

from batch import main
from batch_hubs import Engine

from tests.slurm import Slurm, counting_commands


def slurm() -> Engine:
    """A cluster that is large enough."""
    cluster = Slurm(CPUS=4096, MEM_MB=2**22, FREQ=0)
    backend = {"type": "slurm", "memory": {"default": "1G", "max": "1G"}}
    peer = """
c.SlurmSpawner.req_memory = "1G"
c.SlurmSpawner.state_exechost_exp = "127.0.0.1"  # the rig's nodes have no address of their own
"""
    return Engine("Slurm", cluster, counting_commands, cluster.cancel_all, backend, "SlurmSpawner", peer)


if __name__ == "__main__":
    sys.exit(main(__doc__, slurm, servers=60))
