"""An executor of a redrive as a process of its own that kills itself: `redrive_victim.py BOOTSTRAP NAMESPACE PIPELINE JOB STEP NUMBER`.

STEP is where: `opened` (it has fenced the others), `fetched` (a batch was read), `produced` (a batch is in an open transaction),
`committed` (a batch is committed and nothing more). NUMBER counts how often the step is passed, from 1.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.redrive import job as redrive_job
from trunkline.bus.redrive import plan as redrive_plan
from trunkline.bus.redrive import transactions as redrive
from trunkline.bus.redrive.jobs import JobLog, Wish
from trunkline.registry.client import RegistryClient

SMALL_BATCH = 5


def main(bootstrap: str, namespace: str, pipeline: str, identity: str, step: str, number: str) -> None:
    """Executes the job and dies on the way."""
    left = [int(number)]

    def die() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    owner, name = {
        "opened": (redrive.Sender, "open"),
        "fetched": (redrive_plan.LetterReader, "fetch"),
        "produced": (redrive_job.JobRecords, "write_progress"),
        "committed": (redrive.Sender, "send"),
    }[step]
    work = getattr(owner, name)

    def dangerous(*args: Any, **options: Any) -> Any:
        found = work(*args, **options)
        if step == "produced":
            args[1].flush(10)  # what is produced is on the broker, in a transaction that is open
        die()
        return found

    setattr(owner, name, dangerous)
    redrive_job.BATCH = SMALL_BATCH
    settings, names = KafkaSettings(bootstrap), Names(namespace)
    job = JobLog.read(settings, names, patient=False).job(identity)
    around = redrive_job.Surroundings(settings, names, RegistryClient("http://127.0.0.1:9"), lambda _: None, "victim")
    redrive_job.RedriveExecution(around, job, wish=Wish).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
