"""The Salesforce sink: events as records of one object, through sObject Collections and bulk jobs."""

from __future__ import annotations

from collections.abc import Sequence

from sinks.salesforce.client import SalesforceClient, describe_refusal, json_of, refusals
from sinks.salesforce.collections import Collections
from sinks.salesforce.delivery import Row
from sinks.salesforce.headroom import Headroom
from sinks.salesforce.jobs import IngestJobs
from sinks.salesforce.mapping import FieldMapping
from sinks.salesforce.notes import JobNotes
from sinks.salesforce.outcomes import DAILY, request_outcome
from sinks.salesforce.ranges import Ranges
from sinks.salesforce.settings import MAX_COLLECTION, SalesforceConnection, SalesforceSettings
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.errors import ConfigurationError, FatalError, RejectedError, RetriableError, did_you_mean
from trunkline.core.http import HttpResponse
from trunkline.core.uses import ExpressionUse, Use
from trunkline.core.verdicts import Dead, Retry, Verdict

_GRACE = 60.0
"""Seconds beyond a job's own time: for its making, its upload and its results."""
_LARGEST_RESULTS = 256 * 2**20
"""The results of a job are its table again, with an id or an error for each row."""


class SalesforceSink(Sink):
    """Upserts (or inserts) events as records of one Salesforce object."""

    settings_type = SalesforceSettings
    connection_type = SalesforceConnection
    summary = "Salesforce records: upsert by external id in requests of up to 200 or in bulk jobs, a verdict for each."
    promises = Promises(idempotent=True, max_batch=MAX_COLLECTION)

    settings: SalesforceSettings
    connection: SalesforceConnection

    def __init__(self, settings: SalesforceSettings, connection: SalesforceConnection) -> None:
        super().__init__(settings, connection)
        # The settings decide: an insert that is sent twice makes two records, and jobs are made of ranges.
        self.promises = (
            Promises(idempotent=settings.operation == "upsert", max_batch=min(settings.max_batch, MAX_COLLECTION))
            if settings.api == "rest"
            else Promises(
                idempotent=True,
                max_batch=settings.job_records,
                contiguous=True,
                patience=settings.job_timeout + _GRACE,
            )
        )
        self._mapping = FieldMapping(settings)
        self._client: SalesforceClient | None = None
        self._context: PluginContext | None = None
        self._collections: Collections | None = None
        self._ranges: Ranges | None = None

    def uses(self) -> Sequence[Use]:
        """An expression for each field."""
        return [ExpressionUse(text, f"config.fields.{name}") for name, text in self.settings.fields.items()]

    async def open(self, context: PluginContext) -> None:
        """Signs in and checks object, fields and external id against the object's describe."""
        self._context = context
        bulk = self.settings.api != "rest"
        self._client = client = SalesforceClient(self.connection, largest_answer=_LARGEST_RESULTS if bulk else 0)
        response = await client.request("GET", f"sobjects/{self.settings.object}/describe")
        if response.status == 404:
            raise await self._unknown_object(client)
        described = json_of(response)
        if response.status != 200 or not isinstance(described, dict):
            raise self._failed_describe(response)
        external_id = self._mapping.describe(described)
        if self.settings.operation == "upsert" and not external_id.unique:
            # Two requests at once, or one sent again while the lost one still runs, can then make two records.
            context.log.warning("salesforce external id is not unique", field=self.settings.external_id)
        headroom = Headroom(client, self.settings)
        self._collections = Collections(client, self.settings, headroom, context.log)
        if bulk:
            self._ranges = Ranges(
                IngestJobs(client, self.settings),
                self._collections,
                self._mapping,
                self.settings,
                headroom,
                JobNotes(context.data / "salesforce-jobs", context.log),
                context.log,
            )
        context.log.info("salesforce ready", object=self.settings.object, usage=str(self._client.usage))

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """One verdict for each event; what can't become a record is `Dead` and not sent."""
        client, collections, context = self._opened()
        if self._ranges is not None:
            found = await self._ranges.write(batch)
            self._tell(client, context)
            return found
        verdicts: dict[int, Verdict] = {}
        rows: list[Row] = []
        for place, event in enumerate(batch.events):
            try:
                rows.append(self._mapping.row(place, event))
            except RejectedError as error:
                verdicts[place] = Dead(str(error), code=error.code)
        if rows:
            verdicts.update(await collections.deliver(rows))
        self._tell(client, context)
        context.log.debug("salesforce batch", records=len(batch.events), sent=len(rows), usage=str(client.usage))
        return [verdicts[place] for place in range(len(batch.events))]

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    def _tell(self, client: SalesforceClient, context: PluginContext) -> None:
        """What the org said of its daily limit counts for every worker. It counts a moving day: it is asked again after `limit_pause`."""
        if client.usage is not None:
            ask_again = self.settings.limit_pause
            context.quota.used(client.usage.used, client.usage.total, name=DAILY, ask_again=ask_again)

    # --- opening ---

    def _opened(self) -> tuple[SalesforceClient, Collections, PluginContext]:
        if self._client is None or self._collections is None or self._context is None:
            raise RuntimeError("the sink is not open")
        return self._client, self._collections, self._context

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
            code = outcome.code if isinstance(outcome, Retry) else "salesforce.unreadable"
            return RetriableError(text, after=after, where=self.connection.url, code=code)
        return FatalError(
            text,
            where=self.connection.url,
            hint="check the permissions of the app's user",
            code="salesforce.refused",
        )
