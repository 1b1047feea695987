"""Every metric that Trunkline exposes, in one table: name, kind, meaning, labels. The reference page is made from it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. `buckets` are seconds, for histograms. What is `computed` is asked for each time: see `Computed`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    computed: bool = False


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

TABLE: tuple[Metric, ...] = (
    Metric("trunkline_records_in_total", "counter", "Records read by a pipeline.", ("pipeline",)),
    Metric(
        "trunkline_records_out_total", "counter", "Records written or delivered by a pipeline.", ("pipeline", "output")
    ),
    Metric(
        "trunkline_records_settled_total",
        "counter",
        "Input records by the class they ended in: delivered, filtered, dead, absorbed, parked. What was parked is counted again as it "
        "ends: delivered, dead or dropped.",
        ("pipeline", "outcome"),
    ),
    Metric(
        "trunkline_delivery_attempts_total", "counter", "Calls of a sink by what came of them.", ("pipeline", "verdict")
    ),
    Metric(
        "trunkline_delivery_seconds",
        "histogram",
        "How long one call of a sink took, in seconds.",
        ("pipeline",),
        _SECONDS,
    ),
    Metric(
        "trunkline_breaker_state",
        "gauge",
        "The circuit breaker of a Connection on a worker: 0 closed, 1 half-open, 2 open. `pipeline/NAME` for a sink without one.",
        ("connection",),
    ),
    Metric("trunkline_in_flight", "gauge", "Records being delivered now.", ("pipeline",)),
    Metric("trunkline_held_records", "gauge", "Records that a sink has read and not settled.", ("pipeline",)),
    Metric(
        "trunkline_held_bytes", "gauge", "Bytes of the records that a sink has read and not settled.", ("pipeline",)
    ),
    Metric("trunkline_fallback_records_total", "counter", "Records that the fallback of a sink took.", ("pipeline",)),
    Metric(
        "trunkline_transaction_seconds",
        "histogram",
        "How long a Kafka transaction took, in seconds.",
        ("pipeline",),
        _SECONDS,
    ),
    Metric(
        "trunkline_transactions_aborted_total",
        "counter",
        "Kafka transactions that were aborted and done again.",
        ("pipeline",),
    ),
    Metric(
        "trunkline_pipeline_state",
        "gauge",
        "1 for the state that the pipeline is in, 0 for the others.",
        ("pipeline", "state"),
    ),
    Metric(
        "trunkline_pipeline_cause",
        "gauge",
        "1 while the pipeline fails, waits or stands still because of this; no series while it does its work.",
        ("pipeline", "code"),
    ),
    Metric(
        "trunkline_audit_intact",
        "gauge",
        "1 while the audit trail goes on from the head that this worker's home folder has noted, 0 where it was tampered with.",
        (),
    ),
    Metric(
        "trunkline_audit_unsealed",
        "gauge",
        "1 while entries of the audit trail wait for a seal, as they do for a second.",
        (),
    ),
    Metric("trunkline_audit_seals", "gauge", "The number of the last seal of the audit trail.", ()),
    Metric("trunkline_pipeline_restarts_total", "counter", "Automatic restarts after a failure.", ("pipeline",)),
    Metric(
        "trunkline_requests_total",
        "counter",
        "Requests that came to a push source, by the status answered.",
        ("pipeline", "status"),
    ),
    Metric(
        "trunkline_requests_refused_total",
        "counter",
        "Requests that a push source refused, by reason.",
        ("pipeline", "reason"),
    ),
    Metric(
        "trunkline_source_progress_ratio",
        "gauge",
        "How much of what it knows to be there a source has read, 0 to 1.",
        ("pipeline", "split"),
        computed=True,
    ),
    Metric(
        "trunkline_source_left_seconds",
        "gauge",
        "How long a source needs for the rest at its present pace, in seconds; absent while nothing moves.",
        ("pipeline", "split"),
        computed=True,
    ),
    Metric(
        "trunkline_budget_remaining",
        "gauge",
        "Requests that an account still allows, of each length of time that is limited: minute, day.",
        ("account", "window"),
    ),
    Metric(
        "trunkline_budget_exhausted_seconds",
        "gauge",
        "Seconds until an account's budget is used up, if requests go on as in the last 5 minutes; +Inf where that is not foreseeable.",
        ("account", "window"),
    ),
    Metric(
        "trunkline_budget_waiting", "gauge", "Pipelines of the worker that wait for an account's budget.", ("account",)
    ),
    Metric(
        "trunkline_ledger_open",
        "gauge",
        "Input records that the ledger can't account for: 0 when it closes.",
        ("pipeline",),
    ),
    Metric("trunkline_parked_records", "gauge", "Records that wait in the park now.", ("pipeline",)),
    Metric("trunkline_parked_keys", "gauge", "Keys that are held back now.", ("pipeline",)),
    Metric(
        "trunkline_parked_settled_total",
        "counter",
        "Parked records that were tried again and settled: delivered, or dead.",
        ("pipeline", "outcome"),
    ),
    Metric(
        "trunkline_state_restore_remaining",
        "gauge",
        "Offsets of a changelog partition that are still to be read before its state is complete.",
        ("pipeline", "partition"),
    ),
    Metric(
        "trunkline_ledger_mismatch",
        "gauge",
        "Input partitions of this worker whose commits do not agree with their records: 0 when the ledger closes.",
        ("pipeline",),
    ),
    Metric(
        "trunkline_embedded_broker_up",
        "gauge",
        "1 while the embedded broker runs and answers, 0 while it does not.",
        (),
    ),
    Metric(
        "trunkline_embedded_broker_fault",
        "gauge",
        "1 for the code of what keeps the embedded broker down, or soon will.",
        ("code",),
    ),
    Metric(
        "trunkline_embedded_disk_free_bytes",
        "gauge",
        "What is free on the file system of the embedded broker's data, in bytes.",
        (),
    ),
    Metric(
        "kafka_consumergroup_lag",
        "gauge",
        "Records between the committed offset and the last stable one; absent where that is not known.",
        ("consumergroup", "topic", "partition"),
        computed=True,
    ),
    Metric(
        "kafka_consumergroup_group_lag_seconds",
        "gauge",
        "Age of the first record not yet committed, 0 where there is none; absent where that is not known.",
        ("group", "topic", "partition"),
        computed=True,
    ),
    Metric(
        "kafka_consumergroup_group_max_lag_seconds",
        "gauge",
        "The largest age over the partitions of the group that this worker tells of; absent where that is not known.",
        ("group",),
        computed=True,
    ),
    Metric(
        "trunkline_lag_unknown",
        "gauge",
        "1 for each reason why the lag of a pipeline, or of some of its partitions, is not known.",
        ("pipeline", "reason"),
        computed=True,
    ),
    Metric(
        "trunkline_lag_estimated",
        "gauge",
        "1 where much waits, so that the records are estimated and not counted.",
        ("pipeline",),
        computed=True,
    ),
    Metric(
        "trunkline_open_transaction_seconds",
        "gauge",
        "How long a transaction has been open that holds a pipeline up; only where that is longer than a minute.",
        ("pipeline", "topic", "partition"),
        computed=True,
    ),
)

Sample = tuple[str, tuple[str, ...], float]
"""The name of a computed metric, the values of its labels in their order, and its value now."""
Samples = Callable[[], Iterable[Sample]]


class Computed(Collector):
    """The gauges that are computed when they are asked for: a series ends with what it tells of, and none says what was true before."""

    def __init__(self) -> None:
        self._sources: list[Samples] = []

    def add(self, source: Samples) -> None:
        """Asks `source` from now on."""
        self._sources.append(source)

    def remove(self, source: Samples) -> None:
        """Asks it no more, if it was asked."""
        with contextlib.suppress(ValueError):
            self._sources.remove(source)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What all sources say now, by the rows of the table."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for source in list(self._sources):
            for name, labels, value in source():
                found.setdefault(name, {})[labels] = value
        for row in TABLE:
            if row.name in found:
                family = GaugeMetricFamily(row.name, row.help, labels=row.labels)
                for labels, value in found[row.name].items():
                    family.add_metric(labels, value)
                yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The rows without a value: asking for values is not for who registers."""
        return (GaugeMetricFamily(row.name, row.help, labels=row.labels) for row in TABLE if row.computed)


computed = Computed()
REGISTRY.register(computed)

_made: dict[str, MetricWrapperBase] = {}
_making = threading.Lock()


def _make(row: Metric) -> MetricWrapperBase:
    if row.kind == "counter":
        return Counter(row.name, row.help, row.labels, registry=REGISTRY)
    if row.kind == "gauge":
        return Gauge(row.name, row.help, row.labels, registry=REGISTRY)
    return Histogram(row.name, row.help, row.labels, registry=REGISTRY, buckets=row.buckets)


def metric(name: str) -> MetricWrapperBase:
    """The collector of a metric of the table, made at first use. Raises KeyError for a name that the table does not have."""
    if name not in _made:
        row = next((row for row in TABLE if row.name == name), None)
        if row is None or row.computed:
            raise KeyError(f"{name} is not in the metrics table, or computed")
        with _making:  # pipelines are opened on several threads, and the registry refuses the second of a name
            if name not in _made:
                _made[name] = _make(row)
    return _made[name]


def end_series(**labels: str) -> None:
    """Ends every series that has these labels, in all metrics whose rows have them: what they told of is gone.

    A child that somebody still holds counts on, and nobody sees it. `labels(...)` begins a new series: so who sets one looks first, on
    the thread that ends them, whether what it tells of is still there.
    """
    for row in TABLE:
        if row.name not in _made:
            continue
        if set(labels) == set(row.labels):
            # Looked up, where the other way looks through the series of all pipelines.
            with contextlib.suppress(KeyError):
                _made[row.name].remove(*(labels[name] for name in row.labels))
        elif set(labels) < set(row.labels):
            _made[row.name].remove_by_labels(labels)


def counter(name: str) -> Counter:
    """A counter of the table."""
    found = metric(name)
    assert isinstance(found, Counter)
    return found


def gauge(name: str) -> Gauge:
    """A gauge of the table."""
    found = metric(name)
    assert isinstance(found, Gauge)
    return found


def histogram(name: str) -> Histogram:
    """A histogram of the table."""
    found = metric(name)
    assert isinstance(found, Histogram)
    return found
