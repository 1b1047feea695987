"""The table of metrics: a collector is made once, whoever asks for it first."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry

from trunkline.core import metrics
from trunkline.core.metrics import Metric, metric


def test_a_collector_that_two_threads_ask_for_first_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metrics, "TABLE", (Metric("trunkline_of_a_test_total", "counter", "Of a test.", ("pipeline",)),)
    )
    monkeypatch.setattr(metrics, "REGISTRY", CollectorRegistry())
    monkeypatch.setattr(metrics, "_made", {})
    making, go_on = threading.Event(), threading.Event()
    made, found = [], []
    plain = metrics._make

    def slow(row: Metric) -> object:
        making.set()
        assert go_on.wait(20)
        made.append(plain(row))
        return made[-1]

    monkeypatch.setattr(metrics, "_make", slow)
    threads = [threading.Thread(target=lambda: found.append(metric("trunkline_of_a_test_total"))) for _ in range(2)]
    threads[0].start()
    assert making.wait(20)
    threads[1].start()
    threads[1].join(0.2)  # it waits for the first one, or has come as far as that
    go_on.set()
    for thread in threads:
        thread.join(20)

    assert [id(one) for one in found] == [id(made[0])] * 2
