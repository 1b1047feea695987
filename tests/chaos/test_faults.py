"""The tools of faults do what they say, and count it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import proxy as tcp
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.faults.tied import ROOT
from tests.chaos.faults.warm import WarmProcess


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets, in a thread for each connection."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_a_tied_process_ends_with_the_one_that_started_it() -> None:
    starter = (
        "import subprocess, threading; from tests.chaos.faults.tied import *;"
        "child = subprocess.Popen(tied('http.server', '0'), stdin=lifeline(), cwd=ROOT);"
        "print('started', flush=True); threading.Event().wait()"
    )
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.kill()
        process.stdout.read()  # comes to its end when both have ended


def test_a_warm_process_has_its_own_arguments_environment_and_output_and_gives_its_code(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    for arguments, code in ((["--version"], 0), (["nonsense"], 2)):
        process = WarmProcess(
            "trunkline.cli.main", arguments, log=out, errors=err, environment={**os.environ, "COLUMNS": "40"}
        )
        assert process.wait(180) == process.poll() == code
    assert out.read_text().startswith("trunkline ")
    assert "nonsense" in err.read_text()


def test_a_warm_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import os, sys, threading; from pathlib import Path; from tests.chaos.faults.warm import *;"
        "process = WarmProcess('http.server', ['0'], log=Path(sys.argv[1]), environment=os.environ);"
        "print(process.pid, flush=True); threading.Event().wait()"
    )
    command = [sys.executable, "-c", starter, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        warm = int(process.stdout.readline())
        os.kill(warm, 0)
        process.kill()
        process.stdout.read()  # comes to its end when the one that forks has ended, too
    deadline = time.monotonic() + 120
    while Path(f"/proc/{warm}").exists():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)


@pytest.fixture
def proxy(echo: tuple[str, int]) -> Iterator[tcp.TcpProxy]:
    made = tcp.TcpProxy(echo)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(proxy: tcp.TcpProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as made:
        yield made


def _says(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(100)


def test_a_proxy_without_a_fault_passes_everything_on(client: socket.socket, proxy: tcp.TcpProxy) -> None:
    assert _says(client, b"hello") == b"hello"
    assert not proxy.fired


def test_a_reset_cuts_what_is_open_and_serves_what_comes(client: socket.socket, proxy: tcp.TcpProxy) -> None:
    assert _says(client, b"hello") == b"hello"
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as again:
        assert _says(again, b"hello") == b"hello"
    assert proxy.fired == {tcp.RESET: 1}


def test_a_black_hole_holds_bytes_back_until_it_is_gone(client: socket.socket, proxy: tcp.TcpProxy) -> None:
    proxy.black_hole(True)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        _says(client, b"hello")
    proxy.black_hole(False)
    client.settimeout(10)
    assert client.recv(100) == b"hello"
    assert proxy.fired[tcp.SILENCE] >= 1


def test_a_delay_is_felt_in_both_directions(client: socket.socket, proxy: tcp.TcpProxy) -> None:
    proxy.delay(0.05)
    begun = time.monotonic()
    assert _says(client, b"hello") == b"hello"
    assert time.monotonic() - begun >= 0.1
    assert proxy.fired[tcp.DELAY] >= 2


def test_a_lost_reply_is_lost_after_the_request_went_through(client: socket.socket, proxy: tcp.TcpProxy) -> None:
    proxy.lose_replies(1)
    with pytest.raises(ConnectionResetError):
        _says(client, b"hello")
    assert proxy.fired == {tcp.LOST_REPLY: 1}  # the echo came back to the proxy: so it was sent on


def test_a_connection_is_cut_at_the_byte(client: socket.socket, proxy: tcp.TcpProxy) -> None:
    proxy.cut_after(7)
    assert _says(client, b"hello") == b"hello"
    with pytest.raises(ConnectionResetError):
        _says(client, b"hello")
    assert proxy.fired == {tcp.CUT: 1}


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[HttpSinkServer]:
    with HttpSinkServer(tmp_path, seed=7) as made:
        yield made


def _post(sink: HttpSinkServer, event: str, key: str | None = None) -> int | str:
    body = json.dumps({"id": event}).encode()
    request = urllib.request.Request(f"{sink.url}/posts", body, {"Idempotency-Key": key} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def test_a_repeated_key_has_no_second_effect_even_after_the_server_was_killed(sink: HttpSinkServer) -> None:
    assert [_post(sink, "a", "k"), _post(sink, "a", "k")] == [200, 200]
    sink.kill()
    sink.start()
    assert _post(sink, "a", "k") == 200
    assert [(call.attempt, call.effect) for call in sink.calls()] == [(1, True), (2, False), (3, False)]
    assert sink.effects == 1


def test_each_answer_of_the_script_is_given_and_counted(sink: HttpSinkServer) -> None:
    sink.script(
        Rule(503, ids=("a",), attempts=1),
        Rule("reset", ids=("b",)),
        Rule("garbage", ids=("c",)),
        Rule("effect-then-drop", ids=("d",), attempts=1),
    )
    assert [_post(sink, "a", "1"), _post(sink, "a", "1")] == [503, 200]
    assert isinstance(_post(sink, "b", "2"), str)
    assert isinstance(_post(sink, "c", "3"), str)
    assert isinstance(_post(sink, "d", "4"), str)
    assert _post(sink, "d", "4") == 200
    assert sink.fired == {"answer 503": 1, "answer reset": 1, "answer garbage": 1, "answer effect-then-drop": 1}
    assert [call.id for call in sink.calls() if call.effect] == ["a", "d"]


def test_an_answer_that_is_held_comes_when_the_script_changes(sink: HttpSinkServer) -> None:
    sink.script(Rule(422, ids=("a",), held=True))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", sink.port, timeout=60)) as held:
        held.request("POST", "/posts", b'{"id": "a"}')
        assert _post(sink, "b") == 200
        sink.script(Rule(503, ids=("a",)))
        assert held.getresponse().status == 422
    assert [call.id for call in sink.calls()] == ["b", "a"]
    assert _post(sink, "a") == 503


def test_a_share_of_the_events_is_chosen_by_the_seed_and_not_by_their_order(sink: HttpSinkServer) -> None:
    sink.script(Rule(429, share=0.3))
    events = [f"e{number}" for number in range(60)]
    forward = {event for event in events if _post(sink, event) == 429}
    backward = {event for event in reversed(events) if _post(sink, event) == 429}
    assert forward == backward
    assert 5 < len(forward) < 30


def test_who_is_away_serves_nobody_and_comes_back_at_the_same_address(
    client: socket.socket, proxy: tcp.TcpProxy
) -> None:
    assert _says(client, b"hello") == b"hello"
    proxy.away(on=True)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=60)
    proxy.away(on=False)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as again:
        assert _says(again, b"hello") == b"hello"
