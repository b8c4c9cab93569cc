"""HEPSpawner and batchspawner's CondorSpawner side by side on a real HTCondor: commands, starts, restarts of the hub.

    python benchmarks/htcondor.py [lab | storm | commands | restart]… [--servers 40] [--more 600] [--peer 200]
        [--rounds 3] [--json]

Only for root; how, is said in batch.py.
"""

import sys

from batch import main
from batch_hubs import Engine

from tests.htcondor import Condor, counting_commands


def htcondor() -> Engine:
    """A pool that is large enough: of 96 machines, for one is given to one user only in each negotiation. All share the
    disk of this one, of which a job would get 1 GiB."""
    machines = "NUM_SLOTS_TYPE_1 = 32\nSLOT_TYPE_1 = 3%\nMACHINE_RESOURCE_INVENTORY_GPUs =\n"
    machines += "JOB_DEFAULT_REQUESTDISK = 1024"
    pool = Condor(CPUS=4096, MEM_MB=2**22, NEGOTIATE=2, TICK=5, EXTRA_CONF=machines)
    # as CondorSpawner has it: nothing is sent
    backend = {"type": "htcondor", "memory": {"default": "1G", "max": "1G"}, "shared_homes": True}
    peer = """
c.CondorSpawner.req_memory = "1G"
c.CondorSpawner.req_nprocs = "1"
"""
    return Engine("HTCondor", pool, counting_commands, pool.remove_all, backend, "CondorSpawner", peer)


if __name__ == "__main__":
    sys.exit(main(__doc__, htcondor, servers=40))
