"""The Salesforce sink: events as records of one object, through sObject Collections.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections.htm
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import orjson

from sinks.salesforce.client import SalesforceClient, describe_refusal, json_of, refusals
from sinks.salesforce.delivery import Answered, Row, deliver
from sinks.salesforce.outcomes import Refused, may_have_worked, request_outcome, row_outcome
from sinks.salesforce.record import ExternalId, ObjectFields, Target, to_json
from sinks.salesforce.settings import MAX_COLLECTION, SalesforceConnection, SalesforceSettings
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.errors import (
    ConfigurationError,
    FatalError,
    RejectedError,
    RetriableError,
    did_you_mean,
)
from trunkline.core.event import Event
from trunkline.core.expressions import Expression, compile_expression
from trunkline.core.http import HttpResponse, NoAnswerError, check_header
from trunkline.core.verdicts import Dead, Retry, Unknown, Verdict


class SalesforceSink(Sink):
    """Upserts (or inserts) events as records of one Salesforce object."""

    settings_type = SalesforceSettings
    connection_type = SalesforceConnection
    summary = "Salesforce records: upsert by external id in batches of up to 200, with a verdict for each."
    promises: ClassVar[Promises] = Promises(idempotent=True, max_batch=MAX_COLLECTION)

    settings: SalesforceSettings
    connection: SalesforceConnection

    def __init__(self, settings: SalesforceSettings, connection: SalesforceConnection) -> None:
        super().__init__(settings, connection)
        # The settings decide: an insert that is sent twice makes two records.
        self.__dict__["promises"] = Promises(
            idempotent=settings.operation == "upsert", max_batch=min(settings.max_batch, MAX_COLLECTION)
        )
        self._expressions: dict[str, Expression] = {
            name: compile_expression(text, where=f"config.fields.{name}") for name, text in settings.fields.items()
        }
        self._targets: dict[str, Target] = {}
        self._external_id = ExternalId()
        self._client: SalesforceClient | None = None
        self._context: PluginContext | None = None
        self._measuring = asyncio.Lock()

    async def open(self, context: PluginContext) -> None:
        """Signs in and checks object, fields and external id against the object's describe."""
        self._context = context
        self._client = SalesforceClient(self.connection)
        response = await self._client.request("GET", f"sobjects/{self.settings.object}/describe")
        if response.status == 404:
            raise await self._unknown_object(self._client)
        described = json_of(response)
        if response.status != 200 or not isinstance(described, dict):
            raise self._failed_describe(response)
        upsert = self.settings.operation == "upsert"
        fields = ObjectFields(described)
        names = [*self.settings.fields, *filter(None, [self.settings.correlation_field])]
        self._targets = {name: fields.target(name, upsert=upsert) for name in names}
        if self.settings.external_id is not None and upsert:
            self._external_id = fields.external_id(self.settings.external_id)
            if not self._external_id.unique:
                # Two requests at once, or one sent again while the lost one still runs, can then make two records.
                context.log.warning("salesforce external id is not unique", field=self.settings.external_id)
        context.log.info("salesforce ready", object=self.settings.object, usage=str(self._client.usage))

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """One verdict for each event; what can't become a record is `Dead` and not sent."""
        client, context = self._opened()
        verdicts: dict[int, Verdict] = {}
        rows: list[Row] = []
        for place, event in enumerate(batch.events):
            try:
                rows.append(self._row(place, event))
            except RejectedError as error:
                verdicts[place] = Dead(str(error), code=error.code)
        if rows:
            verdicts.update(await deliver(rows, self._send, most=self.settings.max_batch))
        context.log.debug("salesforce batch", records=len(batch.events), sent=len(rows), usage=str(client.usage))
        return [verdicts[place] for place in range(len(batch.events))]

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    # --- opening ---

    def _opened(self) -> tuple[SalesforceClient, PluginContext]:
        if self._client is None or self._context is None:
            raise RuntimeError("the sink is not open")
        return self._client, self._context

    async def _unknown_object(self, client: SalesforceClient) -> ConfigurationError:
        response = await client.request("GET", "sobjects")
        if response.status == 404:
            return ConfigurationError(
                f"the org has no REST API {self.connection.api_version}",
                where="connection.api_version",
                hint="take a version that its /services/data lists",
                code="salesforce.version",
            )
        answer = json_of(response)
        found = answer.get("sobjects", []) if isinstance(answer, dict) else []
        names = [str(item.get("name")) for item in found if isinstance(item, dict)]
        return ConfigurationError(
            f"the org has no object {self.settings.object!r} that the app's user may see",
            where="config.object",
            hint=did_you_mean(self.settings.object, names),
            code="salesforce.object",
        )

    def _failed_describe(self, response: HttpResponse) -> Exception:
        text = f"the object {self.settings.object} can't be described: {describe_refusal(response)}"
        outcome = request_outcome(
            response.status,
            refusals(response),
            limit_pause=self.settings.limit_pause,
            after=response.retry_after(),
        )
        if isinstance(outcome, Retry) or response.status < 300:
            after = outcome.after if isinstance(outcome, Retry) else None
            return RetriableError(text, after=after, where=self.connection.url)
        return FatalError(
            text,
            where=self.connection.url,
            hint="check the permissions of the app's user",
            code="salesforce.refused",
        )

    # --- records ---

    def _row(self, place: int, event: Event) -> Row:
        """The event as a record. Raises `RejectedError`."""
        record: dict[str, Any] = {"attributes": {"type": self.settings.object}}
        identity: object | None = None
        for name, expression in self._expressions.items():
            target = self._targets[name]
            value = to_json(expression.datum(event.value, event), target)
            if name == self.settings.external_id and self.settings.operation == "upsert":
                identity = self._identity(name, value)
            if value is not None or self.settings.nulls == "send":
                target.put(record, value)
        if self.settings.correlation_field is not None:
            target = self._targets[self.settings.correlation_field]
            target.put(record, to_json(event.correlation_id, target))
        try:
            body = orjson.dumps(record)
        except TypeError as error:
            raise RejectedError(
                f"the record can't be written as JSON: {error}", code="salesforce.value_type"
            ) from error
        return Row(place, body, identity, _sendable(event.correlation_id), _sendable(event.envelope.traceparent))

    def _identity(self, name: str, value: Any) -> object:
        """The external id as Salesforce compares it: without the blanks around it, and mostly without regard to case."""
        if value is None or (isinstance(value, str) and not value.strip()):
            raise RejectedError(f"{name}, the external id, is empty", code="salesforce.external_id_empty")
        if isinstance(value, str):
            return value.strip() if self._external_id.case_sensitive else value.strip().casefold()
        return value

    # --- requests ---

    async def _send(self, rows: Sequence[Row]) -> Answered:
        client, context = self._opened()
        try:
            held = await self._held_back(client)
        except RetriableError as error:
            # Whatever became of the question for the limits, the records were not sent.
            return _for_all(rows, Retry(str(error), after=error.after))
        except (FatalError, ConfigurationError) as error:
            return _for_all(rows, _stopping(error))
        if held is not None:
            context.log.warning("salesforce limit is near", usage=str(client.usage), pause=held.after)
            return _for_all(rows, held)
        path = "composite/sobjects"
        if self.settings.operation == "upsert":
            path += f"/{self.settings.object}/{self.settings.external_id}"
        content = b'{"allOrNone":false,"records":[' + b",".join(row.body for row in rows) + b"]}"
        try:
            response = await client.request(
                "PATCH" if self.settings.operation == "upsert" else "POST",
                path,
                content=content,
                correlation_id=rows[0].correlation_id,
                traceparent=rows[0].traceparent,
            )
        except NoAnswerError as error:
            return _for_all(rows, Unknown(str(error)))
        except RetriableError as error:
            return _for_all(rows, Retry(str(error), after=error.after))
        except (FatalError, ConfigurationError) as error:
            return _for_all(rows, _stopping(error))
        return self._judged(rows, response)

    def _judged(self, rows: Sequence[Row], response: HttpResponse) -> Answered:
        if not 200 <= response.status < 300:
            outcome = request_outcome(
                response.status,
                refusals(response),
                limit_pause=self.settings.limit_pause,
                after=response.retry_after(),
            )
            if isinstance(outcome, Retry) and may_have_worked(response.status):
                # The engine sends an unknown record again where that makes no second one, and asks its settings elsewhere.
                return _for_all(rows, outcome if self.promises.idempotent else Unknown(outcome.reason))
            if isinstance(outcome, Verdict | Refused):
                return _for_all(rows, outcome)
            return Answered(outcome)
        answer = json_of(response)
        if not isinstance(answer, list) or len(answer) != len(rows):
            found = f"{len(answer)} results" if isinstance(answer, list) else "no list of results"
            return _for_all(rows, Unknown(f"Salesforce answered {len(rows)} records with {found}"), stop=False)
        found_outcomes = [row_outcome(item, limit_pause=self.settings.limit_pause) for item in answer]
        unreadable = Unknown("Salesforce's result for this record can't be read")
        return Answered([unreadable if outcome is None else outcome for outcome in found_outcomes])

    async def _held_back(self, client: SalesforceClient) -> Retry | None:
        """A `Retry` when the daily limit is nearly used up. What was seen is believed for `limit_pause` seconds."""
        usage = client.usage
        if usage is None or usage.share <= self.settings.limit_reserve:
            return None
        async with self._measuring:
            usage = client.usage or usage
            if time.monotonic() >= usage.seen + self.settings.limit_pause:
                usage = await client.measure_usage() or usage
        if usage.share <= self.settings.limit_reserve:
            return None
        wait = max(0.0, usage.seen + self.settings.limit_pause - time.monotonic())
        return Retry(
            f"{usage} of the org's daily API requests are used, more than the share of {self.settings.limit_reserve:g}",
            after=wait,
        )


def _for_all(rows: Sequence[Row], outcome: Verdict | Refused, *, stop: bool = True) -> Answered:
    return Answered([outcome] * len(rows), stop=stop)


def _stopping(error: FatalError | ConfigurationError) -> Refused:
    if isinstance(error, FatalError):
        return Refused(str(error), error)
    # A missing secret or a refused address, met after the start: the contract of `write` knows one way to stop.
    return Refused(str(error), FatalError(error.message, where=error.where, hint=error.hint, code=error.code))


def _sendable(value: str | None) -> str | None:
    """A value that may stand in a header, else None: a record from elsewhere may carry any bytes as its correlation id."""
    if not value:
        return None
    try:
        check_header("X-Correlation-ID", value)
    except ConfigurationError:
        return None
    return value
