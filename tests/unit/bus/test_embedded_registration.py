"""Ending the registration of a killed broker, with a controller that is as slow as a test wants it."""

from __future__ import annotations

import sys
from pathlib import Path

from trunkline.bus.embedded.registration import end_registration

HOUR = 3600.0
PROPERTIES = {"listeners": "CLIENT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"}
MANAGER = "INFO  ClusterControlManager [QuorumController id=1] Replayed"
REGISTERED = (
    f"{MANAGER} initial RegisterBrokerRecord for broker 1: RegisterBrokerRecord(brokerId=1, fenced=true, logDirs=[])"
)
CHANGED = (
    "BrokerRegistrationChangeRecord modifying the registration for broker 1: BrokerRegistrationChangeRecord(brokerId=1,"
)
UNFENCED, FENCED = (f"{MANAGER} {CHANGED} brokerEpoch=13, fenced={value}, logDirs=[])" for value in ("-1", "1"))
ACTIVE = "WARN  QuorumController [QuorumController id=1] Performing controller activation."
FENCING = "INFO  ReplicationControlManager [QuorumController id=1] Fencing broker 1 at epoch 13 because its session has timed out."
CONTROLLER = """
import itertools, sys, time
log, metadata, *steps = sys.argv[1:]
for step in itertools.chain(steps, itertools.repeat("metadata:nothing, said while idle")):
    file, _, text = step.partition(":")
    with open(log if file == "log" else metadata, "a") as opened:
        opened.write(text + "\\n")
    time.sleep(0.05)
"""


def _run(tmp_path: Path, *steps: str) -> str:
    """What the metadata log has when the controller that does these steps was ended."""
    log, metadata = tmp_path / "server.log", tmp_path / "data" / "__cluster_metadata-0" / "00000000000000000000.log"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("what was there\n")
    log.write_text(f"of another life\n{ACTIVE}\n{FENCED}\n")
    arguments = [sys.executable, "-c", CONTROLLER, str(log), str(metadata), *steps]
    end_registration(lambda _file: arguments, PROPERTIES, tmp_path, log, timeout=HOUR)
    return metadata.read_text()


def test_the_controller_is_not_ended_before_its_log_has_it_that_the_broker_is_gone(tmp_path: Path) -> None:
    told = _run(
        tmp_path,
        *(f"log:{line}" for line in (REGISTERED, UNFENCED, ACTIVE, FENCING, FENCED)),
        "metadata:the broker is gone",
    )
    assert "the broker is gone" in told


def test_where_the_broker_had_not_come_so_far_that_it_had_a_session_nothing_is_waited_for(tmp_path: Path) -> None:
    _run(tmp_path, f"log:{REGISTERED}", f"log:{ACTIVE}")


def test_where_the_session_was_ended_before_the_record_of_it_is_not_waited_for(tmp_path: Path) -> None:
    _run(tmp_path, *(f"log:{line}" for line in (REGISTERED, UNFENCED, FENCED, ACTIVE)))
