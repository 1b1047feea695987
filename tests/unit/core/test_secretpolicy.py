"""What references may name: the operator of a worker says so, and some things nobody may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests import load_text
from trunkline.core.manifests.check import examine
from trunkline.core.secret import Secret, resolve_references
from trunkline.core.secretpolicy import FOLDERS, NAMES, protect
from trunkline.core.secretstores import MAX_BYTES


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (NAMES, FOLDERS, "CREDENTIALS_DIRECTORY", "TRUNKLINE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def refusal(reference: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        Secret(reference).reveal()
    return raised.value


def file(path: Path | str) -> str:
    return f"${{file:{path}}}"


# --- variables ---


@pytest.mark.parametrize(
    "name",
    [
        *("TRUNKLINE_KAFKA_SASL_PASSWORD", "TRUNKLINE_REGISTRY_BASIC_AUTH_USER_INFO", "AWS_SECRET_ACCESS_KEY"),
        *("VAULT_TOKEN", "KUBECONFIG", "HTTPS_PROXY", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_what_the_worker_or_its_machine_signs_in_with_is_not_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "canary-of-the-worker")
    for reference in (f"${{env:{name}}}", f"${{env:{name}:-default}}"):
        error = refusal(reference)
        assert (error.code, NAMES in str(error.hint), "canary" in str(error)) == ("secret.not_allowed", True, False)


def test_other_variables_are_read_where_the_operator_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLACK_BOT_TOKEN", "TRUNKLINE_MASK_KEY"):
        monkeypatch.setenv(name, "a-value-of-mine")
        assert Secret(f"${{env:{name}}}").reveal() == "a-value-of-mine"


def test_an_operator_names_the_variables_by_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES, "SHOP_*, AWS_TOKEN\tTRUNKLINE_*")
    for name in ("SHOP_KEY", "AWS_TOKEN", "OTHER_KEY", "shop_key", "TRUNKLINE_API_KEY"):
        monkeypatch.setenv(name, "value-of-shop")
    assert resolve_references("${env:SHOP_KEY} ${env:AWS_TOKEN}") == "value-of-shop value-of-shop"
    for name in ("OTHER_KEY", "shop_key", "TRUNKLINE_API_KEY", "NOT_SET"):
        assert refusal(f"${{env:{name}}}").code == "secret.not_allowed"


# --- files ---


def test_an_operator_names_the_folders_of_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    allowed, beside = tmp_path / "allowed", tmp_path / "allowed-not"
    for folder in (allowed / "deep", beside):
        folder.mkdir(parents=True)
        (folder / "key").write_text("canary-in-a-file")
    monkeypatch.setenv(FOLDERS, f"/no/such{os.pathsep}{allowed}")
    assert Secret(file(allowed / "deep" / "key")).reveal() == "canary-in-a-file"
    assert Secret(file(allowed / "deep" / ".." / "deep" / "key")).reveal() == "canary-in-a-file"
    (allowed / "link").symlink_to(beside / "key")
    (allowed / "folder").symlink_to(beside)
    outside = [beside / "key", allowed / ".." / "allowed-not" / "key", allowed / "link", allowed / "folder" / "key"]
    for path in [*outside, Path("/etc/passwd"), Path("/no/such/../../etc/passwd")]:
        error = refusal(file(path))
        assert (error.code, FOLDERS in str(error), "canary" in str(error)) == ("secret.not_allowed", True, False)


def test_without_a_word_of_the_operator_files_are_read_from_the_usual_places_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "credentials").mkdir()
    for place in ("secrets/key", "credentials/key", "key"):
        (tmp_path / place).write_text("canary-here")
    assert Secret(file("secrets/key")).reveal() == "canary-here"
    assert refusal(file(tmp_path / "credentials" / "key")).code == "secret.not_allowed"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert Secret(file(tmp_path / "credentials" / "key")).reveal() == "canary-here"
    for path in (tmp_path / "key", "/etc/passwd", "/etc/hostname", "key"):
        assert refusal(file(path)).code == "secret.not_allowed"
    assert refusal(file("/run/secrets/no-such")).code == "secret.missing"
    assert refusal(file("/run/secrets/kubernetes.io/serviceaccount/token")).code == "secret.not_allowed"


def test_the_system_and_the_data_of_a_worker_are_never_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDERS, "/")
    homes = [tmp_path / ".trunkline", tmp_path / "named", tmp_path / "told"]
    monkeypatch.setenv("TRUNKLINE_HOME", str(homes[1]))
    protect(homes[2])
    for home in homes[1:]:
        (home / "kafka").mkdir(parents=True)
        (home / "kafka" / "password").write_text("canary")
    (tmp_path / "link").symlink_to(homes[2] / "kafka" / "password")
    (tmp_path / "self").symlink_to("/proc/self")
    own = [homes[1] / "kafka" / "password", homes[2] / "kafka" / "password", tmp_path / "link"]
    for path in [*own, "/proc/self/environ", "/dev/zero", "/sys/kernel/uevent_seqnum", tmp_path / "self" / "environ"]:
        assert refusal(file(path)).code == "secret.not_allowed", path


def test_no_more_than_its_bound_is_read_of_a_file_that_grows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    growing, taken = tmp_path / "growing", 0
    growing.write_bytes(b"x" * 1000)
    own = os.read

    def reads(descriptor: int, count: int) -> bytes:
        nonlocal taken
        with growing.open("ab") as more:
            more.write(b"x" * 100_000)
        found = own(descriptor, min(count, 65_536))
        taken += len(found)
        return found

    monkeypatch.setattr(os, "read", reads)
    error = refusal(file(growing))
    assert "it is larger than 1024 KiB" in str(error)
    assert taken == MAX_BYTES + 1


# --- what validate knows ---

_MANIFEST = """
apiVersion: trunkline/v1
kind: Connection
metadata: {name: shop}
spec: {connector: http, config: {base_url: "https://shop.example.com", auth: {type: bearer, token: "REFERENCE"}}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec: {schema: {type: record, name: Order, fields: [{name: id, type: string}]}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {name: out}
spec: {from: orders, start: earliest, connector: http, connection: shop, config: {url: /orders}}
"""


def codes(reference: str) -> set[str]:
    findings = examine(load_text(_MANIFEST.replace("REFERENCE", reference)))
    return {problem.code for problem in findings.problems}


@pytest.mark.parametrize(
    "reference", ["${env:TRUNKLINE_KAFKA_SASL_PASSWORD}", "${file:/proc/self/environ}", "${file:/run/../dev/zero}"]
)
def test_validate_says_what_is_never_read(reference: str) -> None:
    assert codes(reference) == {"secret.not_allowed"}


def test_validate_says_what_an_operator_does_not_allow_where_it_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert codes("${env:AWS_TOKEN}") == codes(file("/elsewhere/key")) == set()
    monkeypatch.setenv(NAMES, "SHOP_*")
    monkeypatch.setenv(FOLDERS, "/run/secrets")
    assert codes("${env:SHOP_TOKEN}") == codes(file("/run/secrets/key")) == set()
    assert codes("${env:AWS_TOKEN}") == codes(file("/elsewhere/key")) == {"secret.not_allowed"}
