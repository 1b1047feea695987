"""The `http` sink: one request for each record, many under way at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from sinks.http.request import RequestPlan, field_at
from sinks.http.settings import FieldBody, HttpSinkConnection, HttpSinkSettings, TemplateBody
from sinks.http.signing import Signer
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.errors import ConfigurationError, FatalError, RejectedError, RetriableError
from trunkline.core.event import Event
from trunkline.core.http import (
    AddressRefusedError,
    AnswerTooLargeError,
    HttpClient,
    HttpResponse,
    NoAnswerError,
    NotSentError,
    check_header,
    classify_status,
)
from trunkline.core.uses import FieldUse, TemplateUse, Use
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict


class HttpSink(Sink):
    """Delivers each record by one request, and judges by its status."""

    settings_type = HttpSinkSettings
    connection_type = HttpSinkConnection
    summary = "Sends each record to an HTTP endpoint, signed and with an idempotency key if wanted."
    promises = Promises(idempotent=False, max_batch=1)

    def __init__(self, settings: HttpSinkSettings, connection: HttpSinkConnection | None = None) -> None:
        super().__init__(settings, connection)
        self._connection = connection if connection is not None else HttpSinkConnection()
        self._plan = RequestPlan(settings, self._connection)
        if settings.idempotency_header is not None:
            check_header(settings.idempotency_header, "")
        idempotent = settings.method in ("PUT", "DELETE") if settings.idempotent is None else settings.idempotent
        self.promises = Promises(idempotent=idempotent, max_batch=1)
        self._classes = _classes(settings)
        self._client: HttpClient | None = None
        self._signer: Signer | None = None

    def uses(self) -> Sequence[Use]:
        """Templates of the URL, the headers and the body, or the field that is the body."""
        settings: HttpSinkSettings = self.settings
        found: list[Use] = [TemplateUse(settings.url, "config.url")]
        found += [TemplateUse(text, f"config.headers.{name}") for name, text in settings.headers.items()]
        if isinstance(settings.body, TemplateBody):
            found.append(TemplateUse(settings.body.template, "config.body.template"))
        elif isinstance(settings.body, FieldBody):
            path = tuple(settings.body.field.split("."))
            found.append(FieldUse(path, "config.body.field", frozenset({"string", "bytes"})))
        return found

    async def open(self, context: PluginContext) -> None:
        """Reveals the secrets and reads the probe, where one is set."""
        connection, settings = self._connection, self.settings
        self._client = HttpClient(connection.http, auth=connection.auth, base_url=connection.base_url)
        if settings.signing is not None:
            self._signer = Signer(settings.signing.secrets)
        if settings.probe is not None:
            response = await self._client.request("GET", settings.probe, timeout=settings.timeout)
            if not response.ok:
                verdict = classify_status(response.status, response.summary, response.retry_after())
                if isinstance(verdict, Retry):
                    raise RetriableError(f"the probe failed: {verdict.reason}", after=verdict.after, code=verdict.code)
                raise FatalError(
                    f"the probe failed: {response.summary}", hint="look at config.probe", code="http.probe"
                )

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """One request a record. Raises `FatalError` for refused credentials, and for an address that no record decides on."""
        if len(batch.events) == 1:
            return [await self._deliver(batch.events[0])]
        return await asyncio.gather(*(self._deliver(event) for event in batch.events))

    async def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            await self._client.close()

    async def _deliver(self, event: Event) -> Verdict:
        assert self._client is not None
        settings: HttpSinkSettings = self.settings
        try:
            url = self._plan.url(event)
            content, content_type = self._plan.body(event)
            headers = self._headers(event, content, content_type)
            response = await self._client.request(
                settings.method,
                url,
                headers=headers,
                content=content,
                correlation_id=event.correlation_id,
                traceparent=event.traceparent,
                timeout=settings.timeout,
            )
        except RejectedError as error:
            return Dead(str(error), code=error.code)
        except UnicodeEncodeError:
            return Dead("the record holds text that is no UTF-8 (a lone surrogate)", code="record.not_utf8")
        except NotSentError as error:
            return Retry.of(error)
        except AnswerTooLargeError as error:
            return self._judged(error.status, str(error))
        except NoAnswerError as error:
            return Unknown.of(error)
        except AddressRefusedError as error:
            if self._plan.varies:
                return Dead(str(error), code=error.code)
            raise FatalError(error.message, hint=error.hint, code=error.code) from None
        verdict = self._judged(response.status, response)
        return Ok(self._reference(response)) if isinstance(verdict, Ok) else verdict

    def _headers(self, event: Event, content: bytes | None, content_type: str | None) -> dict[str, str]:
        settings: HttpSinkSettings = self.settings
        headers: dict[str, str] = {}
        if content_type is not None:
            headers["Content-Type"] = content_type
        if settings.idempotency_header is not None and event.idempotency_key:
            headers[settings.idempotency_header] = event.idempotency_key
        headers.update(self._plan.headers(event))
        if self._signer is not None:
            message_id = event.idempotency_key or event.envelope.id
            headers.update(self._signer.headers(message_id, int(time.time()), content or b""))
        return headers

    def _judged(self, status: int, answer: HttpResponse | str) -> Verdict:
        found = self._classes.get(status)
        if found == "success":
            return Ok()
        reason, after = (answer, None) if isinstance(answer, str) else (answer.summary, answer.retry_after())
        if found == "retry":
            return Retry(reason, after=after, code=f"http.{status}")
        if found == "dead":
            return Dead(reason, code=f"http.{status}")
        verdict = classify_status(status, reason, after)
        # A 2xx that `success` leaves out took no effect that counts, and would not the next time.
        return Dead(reason, code=f"http.{status}") if isinstance(verdict, Ok) else verdict

    def _reference(self, response: HttpResponse) -> str | None:
        path = self.settings.reference
        if path is not None:
            try:
                return str(field_at(response.json(), path))
            except (KeyError, RetriableError):
                # The record was delivered; an answer of another form takes nothing from that.
                return None
        location = response.headers.get("Location")
        # Whatever bytes the server sent: the trace is UTF-8.
        return location if location is None else location.encode("utf-8", "replace").decode()


def _classes(settings: HttpSinkSettings) -> dict[int, str]:
    """The statuses that the settings speak of. Of two lists that name a status, the one with the exact number has it."""
    found: dict[int, str] = {}
    exact: dict[int, str] = {}
    for name in ("success", "retry", "dead"):
        for status in getattr(settings, name):
            text = str(status)
            if text.endswith("xx"):
                for number in range(int(text[0]) * 100, int(text[0]) * 100 + 100):
                    found[number] = name
            elif exact.setdefault(int(text), name) != name:
                raise ConfigurationError(f"status {text} is in both {exact[int(text)]} and {name}", where="config")
    return found | exact
