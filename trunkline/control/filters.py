"""Filters that people write: CEL expressions, held against the schemas of the records that they are for.

A field that no schema has would look like a filter that no record passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trunkline.bus.redrive.letters import VARIABLES
from trunkline.bus.topics import matching_topics
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.errors import CheckFailedError, ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import BOOL, STANDARD, Variable, compile_expression
from trunkline.registry.client import RegistryClient

_MISFITS = frozenset({"expression.unknown_field", "expression.wrong_type"})
"""What the codes of errors are that another version of a schema may not have."""


class RecordFilter:
    """Whether an expression is true of a record. One that can't be evaluated on a record is not true of it, and counted."""

    def __init__(self, text: str, where: str) -> None:
        self._holds = compile_expression(text, expect=BOOL, where=where)
        self._where = where
        self.unjudged = 0
        self.first_unjudged = ""
        """Place and reason of the first record on which it could not be evaluated."""

    def __call__(self, datum: Any, event: Event) -> bool:
        """Whether it is true of this record."""
        try:
            return self._holds(datum, event) is True
        except RejectedError as error:
            self.unjudged += 1
            place = f"{event.topic}[{event.partition}]@{event.offset}"
            self.first_unjudged = self.first_unjudged or f"{place}: {error.message}"
            return False

    def judge(self, chosen: int) -> None:
        """Raises `CheckFailedError` (`filter.unjudged`) where nothing was chosen, and nobody knows whether that was meant."""
        raise_unjudged(chosen, self.unjudged, self.first_unjudged, self._where)


def record_filter(registry: RegistryClient, topic: str, text: str, where: str) -> RecordFilter:
    """A filter of a topic's records. `where` says in errors which option it is.

    Raises `ConfigurationError` for a wrong one: also where it names a field that no version of the topic's schema has.
    """
    made = RecordFilter(text, where)
    _check(registry, [topic], text, where, STANDARD)
    return made


def check_letter_filter(cluster: Cluster, registry: RegistryClient, pipeline: str, text: str, where: str) -> None:
    """The same for a filter of a pipeline's dead letters, which are records of its inputs. What a source keeps has no schema."""
    compile_expression(text, expect=BOOL, variables=VARIABLES, where=where)
    patterns = pipelines.inputs(cluster).get(pipeline, [])
    reported = [report for report in cluster.board.reports() if report.pipeline == pipeline]
    read = {place.rpartition("/")[0] for report in reported for place in report.positions}
    topics = {*matching_topics(cluster.kafka, patterns), *read} - {cluster.names.retry(pipeline)}
    _check(registry, sorted(topics), text, where, VARIABLES)


def raise_unjudged(chosen: int, unjudged: int, first: str, where: str) -> None:
    """Raises `CheckFailedError` (`filter.unjudged`) where a filter chose nothing and could not be evaluated on some."""
    if unjudged and not chosen:
        raise CheckFailedError(
            f"it is true of none, and could not be evaluated on {unjudged}: {first}",
            where=where,
            hint="`has(event.x)` asks for a field that may be missing",
            code="filter.unjudged",
        )


def _check(
    registry: RegistryClient, topics: Sequence[str], text: str, where: str, variables: Sequence[Variable]
) -> None:
    """Raises `ConfigurationError` where the expression fits none of the topics' schemas. Without any schema nothing is known of fields."""
    misfit: ConfigurationError | None = None
    for schema in _schemas(registry, topics):
        try:
            compile_expression(text, schema=schema, expect=BOOL, variables=variables, where=where)
        except ConfigurationError as error:
            if error.code not in _MISFITS:
                return  # a schema that expressions can't be held against says nothing
            misfit = error
        else:
            return
    if misfit is not None:
        of = f"the schemas of {', '.join(topics)}" if len(topics) < 4 else f"the schemas of {len(topics)} topics"
        raise ConfigurationError(
            f"it fits none of {of}: {misfit.message}", where=where, hint=misfit.hint, code=misfit.code
        )


def _schemas(registry: RegistryClient, topics: Iterable[str]) -> Iterator[Any]:
    """Every version of the schemas of the topics' values, the oldest first."""
    for topic in topics:
        for version in registry.versions(f"{topic}-value"):
            yield registry.version(f"{topic}-value", version).json
