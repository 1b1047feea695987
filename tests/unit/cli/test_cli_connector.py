"""`trunkline connector`: plug-ins listed, described from their settings classes, and their connections tried."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from trunkline.cli.main import app
from trunkline.core.plugins import GROUPS, plugin_names


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["connector", *arguments])


def described(name: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call("describe", name, "--kind", kind, "-o", "json").stdout)
    return found


def test_the_list_has_every_installed_plug_in() -> None:
    listed = {(one["kind"], one["name"]) for one in json.loads(call("ls", "-o", "json").stdout)}
    assert listed == {(kind, name) for kind in GROUPS for name in plugin_names(kind)}


def test_a_name_of_two_kinds_is_described_twice_unless_one_is_chosen() -> None:
    both = json.loads(call("describe", "file", "-o", "json").stdout)
    assert [one["kind"] for one in both] == ["source", "sink"]
    assert described("file", "sink")["kind"] == "sink"


def test_settings_have_type_default_and_meaning() -> None:
    rows = {row["name"]: row for row in described("slack", "sink")["settings"]}
    assert rows["min_interval"]["type"] == "length of time"
    assert rows["min_interval"]["default"] == "1s"
    assert rows["text"]["required"] is True
    assert rows["text"]["description"]


def test_secrets_are_marked_and_nested_settings_have_paths() -> None:
    rows = {row["name"]: row for row in described("slack", "sink")["connection"]}
    assert (rows["token"]["type"], rows["token"]["secret"]) == ("secret", True)
    assert rows["http.max_response"]["default"] == "16 MiB"


def test_variants_are_told_apart_by_their_type() -> None:
    rows = described("salesforce", "sink")["connection"]
    auth = next(row for row in rows if row["name"] == "auth")
    assert auth["type"] == "settings, by their `type`: `client_credentials`, `jwt_bearer`"
    assert {row["variant"] for row in rows if row["name"].startswith("auth.")} == {
        "type: client_credentials",
        "type: jwt_bearer",
    }


def test_the_table_shows_every_setting() -> None:
    text = call("describe", "slack").stdout
    for row in described("slack", "sink")["settings"]:
        assert row["name"] in text


def test_the_json_schema_refuses_unknown_fields() -> None:
    schema = json.loads(call("describe", "slack", "--format", "schema").stdout)
    assert schema["config"]["additionalProperties"] is False
    assert set(schema) == {"kind", "config", "connection"}


def test_an_unknown_plug_in_suggests_the_nearest() -> None:
    result = call("describe", "salesfroce")
    assert result.exit_code == 2
    assert "did you mean 'salesforce'?" in result.stderr


SINK = """\
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: orders}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: out}}
spec:
  from: [orders]
  start: latest
  connector: file
  config: {{folder: {folder}, format: {{type: jsonl}}}}
"""


def test_a_sink_that_opens_is_said_to_open(tmp_path: Path) -> None:
    (tmp_path / "sink.yaml").write_text(SINK.format(folder=tmp_path / "out"), encoding="utf-8")
    result = call("test", "-f", str(tmp_path / "sink.yaml"), "out", "-o", "json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["opened"] is True


HTTP_SINK = """\
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: orders}}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: partner}}
spec:
  connector: http
  config: {{base_url: "http://127.0.0.1:{port}", http: {{allow_private: ["127.0.0.1"]}}}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: out}}
spec:
  from: [orders]
  start: latest
  connector: http
  connection: partner
  config: {{url: /orders{probe}}}
"""


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_where_no_probe_asks_the_other_system_that_is_said(tmp_path: Path, unused_tcp_port: int) -> None:
    (tmp_path / "sink.yaml").write_text(HTTP_SINK.format(port=unused_tcp_port, probe=""), encoding="utf-8")
    result = call("test", "-f", str(tmp_path / "sink.yaml"), "out")
    assert result.exit_code == 0, result.stderr
    assert "nothing was asked over the network" in result.stdout


def test_where_a_probe_asks_the_other_system_no_more_is_said_than_that_it_opened(tmp_path: Path, port: int) -> None:
    (tmp_path / "sink.yaml").write_text(HTTP_SINK.format(port=port, probe=", probe: /health"), encoding="utf-8")
    result = call("test", "-f", str(tmp_path / "sink.yaml"), "out")
    assert result.exit_code == 0, result.stderr
    assert "nothing was asked" not in result.stdout
    assert json.loads(call("test", "-f", str(tmp_path / "sink.yaml"), "out", "-o", "json").stdout)["probed"] is True


def test_a_sink_that_does_not_open_fails_with_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, no folder", encoding="utf-8")
    (tmp_path / "sink.yaml").write_text(SINK.format(folder=tmp_path / "taken"), encoding="utf-8")
    result = call("test", "-f", str(tmp_path / "sink.yaml"), "out")
    assert result.exit_code in {2, 3}
    assert "error[" in result.stderr


def test_a_pipeline_that_is_not_there_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "sink.yaml").write_text(SINK.format(folder=tmp_path), encoding="utf-8")
    result = call("test", "-f", str(tmp_path / "sink.yaml"), "outt")
    assert result.exit_code == 2
    assert "did you mean 'out'?" in result.stderr


@pytest.mark.parametrize("kind", ["source", "step", "sink"])
def test_each_plug_in_of_a_kind_has_a_markdown_page_with_its_settings(kind: str) -> None:
    for name in plugin_names(kind):  # type: ignore[arg-type]
        result = call("describe", name, "--kind", kind, "--format", "markdown")
        assert result.stdout.startswith(f"# {name} ({kind})\n")
        assert "## Settings" in result.stdout
