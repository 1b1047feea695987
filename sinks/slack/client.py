"""Slack over HTTP: the Web API with a bot token, or an incoming webhook."""

from __future__ import annotations

from typing import Any

from sinks.slack.answers import api_answer, api_verdict, webhook_verdict
from sinks.slack.settings import SlackConnection
from trunkline.core.errors import ConfigurationError, FatalError, RejectedError, RetriableError
from trunkline.core.event import Event
from trunkline.core.http import AddressRefusedError, BearerAuth, HttpClient, NoAnswerError, check_url
from trunkline.core.jsonable import to_json_bytes
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

# Without a charset the Web API answers with a warning.
_JSON = {"Content-Type": "application/json; charset=utf-8"}


class SlackClient:
    """One Slack connection. Making it resolves the secret and may raise `ConfigurationError`."""

    def __init__(self, connection: SlackConnection) -> None:
        self._webhook: str | None = None
        if connection.webhook_url is not None:
            self._webhook = _checked(connection.webhook_url.reveal(), connection.webhook_url.reference)
            self._http = HttpClient(connection.http)
        else:
            assert connection.token is not None
            auth = BearerAuth(type="bearer", token=connection.token)
            self._http = HttpClient(connection.http, auth=auth, base_url=connection.base_url)

    @property
    def by_webhook(self) -> bool:
        """Whether messages go through an incoming webhook, which belongs to one channel."""
        return self._webhook is not None

    async def probe(self) -> str:
        """Asks who we are, and returns the workspace's name. A webhook can only be tried by posting: nothing is asked.

        Raises `FatalError` when the token is refused, and `RetriableError` when Slack can't say now.
        """
        if self._webhook is not None:
            return ""
        response = await self._http.request("POST", "/auth.test", headers=_JSON, content=b"{}")
        answer = api_answer(response) or {}
        if answer.get("ok") is True:
            return str(answer.get("team", ""))
        verdict = api_verdict(response)
        if isinstance(verdict, Dead):
            raise FatalError(f"{verdict.reason} (auth.test)", code=verdict.code)
        after = verdict.after if isinstance(verdict, Retry) else None
        reason = "Slack gave no receipt" if isinstance(verdict, Ok) else verdict.reason
        code = "slack.no_receipt" if isinstance(verdict, Ok) else verdict.code
        raise RetriableError(f"{reason} (auth.test)", after=after, code=code)

    async def post(self, message: dict[str, Any], event: Event) -> Verdict:
        """Posts a message and says what became of it. Raises `FatalError` when the connection is refused for good."""
        try:
            response = await self._http.request(
                "POST",
                self._webhook or "/chat.postMessage",
                headers=_JSON,
                content=to_json_bytes(message),
                correlation_id=event.correlation_id,
                traceparent=event.envelope.traceparent,
            )
        except RejectedError as error:
            return Dead(error.message, code=error.code)
        except NoAnswerError as error:
            return Unknown.of(error)
        except RetriableError as error:
            return Retry.of(error)
        except AddressRefusedError as error:
            raise FatalError(error.message, hint=error.hint, code=error.code) from error
        return webhook_verdict(response) if self._webhook else api_verdict(response)

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.close()


def _checked(url: str, reference: str) -> str:
    try:
        check_url(url)
    except AddressRefusedError:
        # The address itself is the secret, so that it stands in no message.
        raise ConfigurationError(
            f"webhook_url: what {reference} holds is no address of a webhook",
            hint="it begins with https://hooks.slack.com/services/",
            code="slack.webhook",
        ) from None
    return url
