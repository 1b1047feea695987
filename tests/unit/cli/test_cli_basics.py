"""The command line as a whole: where options may stand, how errors look, which exit codes they have, what is imported."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import structlog
import yaml
from typer.testing import CliRunner, Result

from trunkline.bus.embedded import RunningBroker
from trunkline.cli.main import app
from trunkline.control.addresses import address
from trunkline.core.errors import ConfigurationError
from trunkline.core.log import KafkaClientLog, get_logger


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BOOTSTRAP_SERVERS", "REGISTRY_URL", "NAMESPACE", "INGRESS", "API"):
        monkeypatch.delenv(f"TRUNKLINE_{name}", raising=False)
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_help_needs_neither_a_kafka_client_nor_the_settings_library() -> None:
    slow = ["confluent_kafka", "pydantic", "aiohttp", "fastavro", "rich.console", "structlog"]
    code = f"import sys; import trunkline.cli.main; print([name for name in {slow!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


def test_every_command_of_the_reference_is_there() -> None:
    text = call("--help").stdout
    nouns = "demo up run validate plan apply status pause resume stop start restart lag trace reconcile mock doctor"
    for name in [*nouns.split(), "topic", "schema", "connector", "dlq"]:
        assert f"\n  {name} " in text


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert call("--version").stdout == f"trunkline {version('trunkline')}\n"


def test_shared_options_may_stand_before_or_after_the_command() -> None:
    before = call("-o", "json", "connector", "ls", "--kind", "sink")
    after = call("connector", "ls", "--kind", "sink", "-o", "json")
    assert before.exit_code == after.exit_code == 0
    assert json.loads(before.stdout) == json.loads(after.stdout)


def test_yaml_output_has_the_data_of_json_output() -> None:
    as_yaml = yaml.safe_load(call("connector", "describe", "slack", "-o", "yaml").stdout)
    assert as_yaml == json.loads(call("connector", "describe", "slack", "-o", "json").stdout)


def test_without_any_broker_a_command_says_how_to_get_one_and_ends_with_3() -> None:
    result = call("status")
    assert result.exit_code == 3
    assert result.stderr.startswith("error[kafka.none]: no broker was named")
    assert "hint: start one with `trunkline up`, or name one by --bootstrap" in result.stderr
    assert "Traceback" not in result.output


def test_with_json_output_errors_are_json_on_standard_error() -> None:
    result = call("status", "-o", "json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert json.loads(result.stderr)["error"]["code"] == "kafka.none"


def test_an_unreachable_broker_is_named_and_ends_with_3(unused_tcp_port: int) -> None:
    result = call("status", "--bootstrap", f"127.0.0.1:{unused_tcp_port}")
    assert result.exit_code == 3
    assert f"error[kafka.refused]: nothing accepts connections at 127.0.0.1:{unused_tcp_port}" in result.stderr


def test_an_embedded_broker_that_does_not_answer_is_no_wrong_address(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    silent = RunningBroker(f"127.0.0.1:{unused_tcp_port}", 1, "4.3.1", {})
    monkeypatch.setattr("trunkline.bus.embedded.find_running", lambda _home: silent)
    monkeypatch.setattr("trunkline.cli.session.PING_SECONDS", 0.5)
    result = call("status")
    assert result.exit_code == 3
    assert "error[kafka.refused]" in result.stderr
    assert "this is the embedded broker of" in result.stderr
    assert "--bootstrap" not in result.stderr


def test_debug_shows_the_traceback_and_the_error() -> None:
    result = call("status", "--debug")
    assert "Traceback (most recent call last)" in result.stderr
    assert "error[kafka.none]" in result.stderr


def test_a_defect_shows_no_traceback_but_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("trunkline.core.docs.listing", broken)
    result = call("connector", "ls")
    assert result.exit_code == 3
    assert result.stderr.startswith("error[internal]: ZeroDivisionError: of ours\n  hint: ")


def test_a_command_shows_warnings_of_what_it_uses_and_nothing_less(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    root = logging.getLogger()
    request.addfinalizer(partial(setattr, root, "handlers", root.handlers[:]))
    request.addfinalizer(partial(root.setLevel, root.level))
    request.addfinalizer(structlog.reset_defaults)
    structlog.reset_defaults()

    def talkative() -> list[dict[str, str]]:
        KafkaClientLog(get_logger("kafka")).log(logging.ERROR, "%s [%s] %s", "GETPID", "rdkafka#producer-7", "retrying")
        get_logger("kafka").info("it is said by the way")
        get_logger("kafka").warning("it must be known")
        return []

    monkeypatch.setattr("trunkline.core.docs.listing", talkative)
    result = call("connector", "ls", "-o", "json")
    assert (result.exit_code, result.stdout) == (0, "[]\n")
    (line,) = result.stderr.splitlines()
    assert "it must be known" in line


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trunkline.core.docs.listing", interrupted)
    result = call("connector", "ls")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_an_unknown_command_suggests_the_nearest_one() -> None:
    result = call("lga")
    assert result.exit_code == 2
    assert "lag" in result.stderr


def test_a_wrong_namespace_is_wrong_input() -> None:
    result = call("status", "--namespace", "No Good", "--bootstrap", "127.0.0.1:1")
    assert result.exit_code == 2
    assert "error[namespace.invalid]" in result.stderr


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_an_address_is_host_and_port(text: str, parts: tuple[str, int]) -> None:
    assert address(text, "--api") == parts


@pytest.mark.parametrize("text", ["8080", "host", "host:", "host:http", "host:70000", ""])
def test_what_is_no_address_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        address(text, "--api")
    assert caught.value.where == "--api"


def test_doctor_names_what_it_found_and_what_to_do() -> None:
    result = call("doctor", "-o", "json")
    found = {one["check"]: one for one in json.loads(result.stdout)}
    assert {"Python", "Java", "Kafka's jars", "disk", "broker", "registry", "plug-ins", "sshd"} <= set(found)
    assert found["Python"]["level"] == "OK"
    assert found["broker"]["level"] == "WARN"
    assert found["broker"]["hint"] == "`trunkline up` starts one"


def test_doctor_fails_where_the_named_broker_is_away(unused_tcp_port: int) -> None:
    result = call("doctor", "--bootstrap", f"127.0.0.1:{unused_tcp_port}", "--registry", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "error[doctor.failed]: failed: broker, registry" in result.stderr


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        (("--api", "127.0.0.1:65534"), "--api: 3 workers take the ports 65534 to 65536"),
        (
            ("--api", "127.0.0.1:8100", "--ingress", "127.0.0.1:8102"),
            "--ingress: 3 workers take 3 ports from --api 8100",
        ),
    ],
)
def test_ports_that_several_workers_can_not_have_are_refused(ports: tuple[str, ...], found: str) -> None:
    answer = call("run", "-f", "none.yaml", "--workers", "3", *ports)
    assert answer.exit_code == 2
    assert found in answer.stderr


def test_a_parked_record_is_not_given_up_without_a_reason() -> None:
    answer = call("parked", "drop", "out", "--key", "a", "--reason", " ")
    assert answer.exit_code == 2
    assert "error[option.reason] --reason" in answer.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_closed_leads_nowhere(closed: str) -> None:
    code = "import sys; from trunkline.cli.main import main; sys.argv = ['trunkline', 'validate', '-f', 'none.yaml']; main()"
    answer = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "{code}" {closed}'],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 2
    assert "AttributeError" not in answer.stderr
