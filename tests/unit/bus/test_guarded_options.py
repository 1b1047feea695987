"""Passwords among the options of clients: in no representation, no traceback, no command line."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.cli.process import forked, workers
from trunkline.cli.process.serveoptions import ServeOptions
from trunkline.cli.session import Session
from trunkline.core.errors import TrunklineError
from trunkline.core.secret import SECRET_OPTIONS, Secret, guarded, revealed
from trunkline.registry.client import RegistryClient

CANARY = "canary-password-of-a-client"
OPTIONS = ServeOptions((), 2, ("127.0.0.1", 0), ("127.0.0.1", 0), "info", "json", until_finished=False)
KAFKA = {"sasl.mechanism": "PLAIN", "sasl.username": "me", "sasl.password": CANARY, "security.protocol": "SASL_SSL"}


@pytest.mark.parametrize("name", sorted(SECRET_OPTIONS))
def test_an_option_that_is_a_secret_shows_in_no_representation(name: str) -> None:
    options = guarded({name: CANARY, "timeout": 5})
    assert CANARY not in f"{options!r} {options} {options[name]} {options[name]!r}"
    assert revealed(options) == {name: CANARY, "timeout": 5}


def test_settings_with_passwords_show_none(tmp_path: Path) -> None:
    kafka = KafkaSettings("b:9092", KAFKA)
    url = f"http://me:{CANARY}@registry.example.com"
    worker = WorkerSettings(kafka, Names(""), tmp_path, url, {"basic.auth.user.info": f"me:{CANARY}"})
    session = Session(bootstrap_option="b:9092", registry_option=url, told=kafka)
    assert CANARY not in repr([kafka, worker, session, kafka.of("p"), kafka.for_others()])
    assert kafka == KafkaSettings("b:9092", kafka.options)


@pytest.mark.parametrize("make", ["producer", "admin", "reader", "consumer"])
def test_no_local_variable_on_the_way_to_a_client_holds_a_password(make: str) -> None:
    kafka = KafkaSettings("b:9092", {**KAFKA, "ssl.ca.location": "/no/such/file"})
    calls = {"consumer": lambda: kafka.consumer("g")}
    with pytest.raises(TrunklineError) as raised:
        calls.get(make, getattr(kafka, make))()
    shown = _locals_of_ours(raised.value)
    assert "sasl.password" in shown
    assert CANARY not in shown


def test_no_local_variable_on_the_way_to_a_registry_holds_a_password() -> None:
    options = guarded({"basic.auth.user.info": f"me:{CANARY}", "no.such.option": 1})
    with pytest.raises(TrunklineError) as raised:
        RegistryClient("https://registry.example.com", options)
    assert CANARY not in _locals_of_ours(raised.value)


def _locals_of_ours(error: BaseException) -> str:
    """What the variables of our functions on the way to an error hold; the clients' own functions have to know passwords."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    causes = [trace, *([trace.__cause__] if trace.__cause__ is not None else [])]
    frames = [frame for one in causes for frame in one.stack if "/trunkline/" in frame.filename]
    assert frames
    return str([frame.locals for frame in frames])


def test_a_password_that_goes_to_another_process_is_a_secret_there_too() -> None:
    kafka = pickle.loads(pickle.dumps(KafkaSettings("b:9092", KAFKA)))
    assert isinstance(kafka.options["sasl.password"], Secret)
    assert kafka.options["sasl.password"].reveal() == CANARY


def test_a_worker_is_told_of_passwords_by_a_pipe_and_by_nothing_that_others_can_read(tmp_path: Path) -> None:
    kafka, url = KafkaSettings("b:9092", KAFKA), f"http://me:{CANARY}@registry.example.com"
    session = Session(home_option=str(tmp_path), registry_option=url)
    assert CANARY not in str(workers._command(OPTIONS, session, kafka))
    theirs, ours = os.pipe()
    try:
        os.write(ours, forked.told(kafka, url))
        heard = forked.hear(theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert heard == (kafka, url)
