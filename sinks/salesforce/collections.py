"""Records through sObject Collections: up to 200 a request, an outcome for each.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections.htm
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog.stdlib

from sinks.salesforce.client import SalesforceClient, json_of, refusals
from sinks.salesforce.delivery import Answered, Row, deliver
from sinks.salesforce.headroom import Headroom
from sinks.salesforce.outcomes import Refused, may_have_worked, request_outcome, row_outcome
from sinks.salesforce.settings import SalesforceSettings
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.http import HttpResponse, NoAnswerError
from trunkline.core.verdicts import Retry, Unknown, Verdict


class Collections:
    """Sends rows to one org."""

    def __init__(
        self,
        client: SalesforceClient,
        settings: SalesforceSettings,
        headroom: Headroom,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._client = client
        self._settings = settings
        self._upsert = settings.operation == "upsert"
        self._headroom = headroom
        self._log = log

    async def deliver(self, rows: Sequence[Row]) -> dict[int, Verdict]:
        """A verdict for each row by its place. Raises `FatalError` as `sinks.salesforce.delivery.deliver` says."""
        return await deliver(rows, self._send, most=self._settings.max_batch)

    async def _send(self, rows: Sequence[Row]) -> Answered:
        try:
            held = await self._headroom.missing()
        except RetriableError as error:
            # Whatever became of the question for the limits, the records were not sent.
            return _for_all(rows, Retry.of(error))
        except (FatalError, ConfigurationError) as error:
            return _for_all(rows, _stopping(error))
        if held is not None:
            self._log.warning("salesforce limit is near", usage=str(self._client.usage), pause=held.after)
            return _for_all(rows, held)
        path = "composite/sobjects"
        if self._upsert:
            path += f"/{self._settings.object}/{self._settings.external_id}"
        content = b'{"allOrNone":false,"records":[' + b",".join(row.body for row in rows) + b"]}"
        try:
            response = await self._client.request(
                "PATCH" if self._upsert else "POST",
                path,
                content=content,
                correlation_id=rows[0].correlation_id,
                traceparent=rows[0].traceparent,
            )
        except NoAnswerError as error:
            return _for_all(rows, Unknown.of(error))
        except RetriableError as error:
            return _for_all(rows, Retry.of(error))
        except (FatalError, ConfigurationError) as error:
            return _for_all(rows, _stopping(error))
        return self._judged(rows, response)

    def _judged(self, rows: Sequence[Row], response: HttpResponse) -> Answered:
        if not 200 <= response.status < 300:
            outcome = request_outcome(
                response.status,
                refusals(response),
                limit_pause=self._settings.limit_pause,
                after=response.retry_after(),
            )
            if isinstance(outcome, Retry) and may_have_worked(response.status):
                # The engine sends an unknown record again where that makes no second one, and asks its settings elsewhere.
                return _for_all(rows, outcome if self._upsert else Unknown(outcome.reason, outcome.code))
            if isinstance(outcome, Verdict | Refused):
                return _for_all(rows, outcome)
            return Answered(outcome)
        answer = json_of(response)
        if not isinstance(answer, list) or len(answer) != len(rows):
            found = f"{len(answer)} results" if isinstance(answer, list) else "no list of results"
            reason = f"Salesforce answered {len(rows)} records with {found}"
            return _for_all(rows, Unknown(reason, "salesforce.unreadable"), stop=False)
        found_outcomes = [row_outcome(item, limit_pause=self._settings.limit_pause) for item in answer]
        unreadable = Unknown("Salesforce's result for this record can't be read", "salesforce.unreadable")
        return Answered([unreadable if outcome is None else outcome for outcome in found_outcomes])


def _for_all(rows: Sequence[Row], outcome: Verdict | Refused, *, stop: bool = True) -> Answered:
    return Answered([outcome] * len(rows), stop=stop)


def _stopping(error: FatalError | ConfigurationError) -> Refused:
    if isinstance(error, FatalError):
        return Refused(str(error), error)
    # A missing secret or a refused address, met after the start: the contract of `write` knows one way to stop.
    return Refused(str(error), FatalError(error.message, where=error.where, hint=error.hint, code=error.code))
