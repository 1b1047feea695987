"""What Slack's answers mean for the message that was sent.

Error codes: https://docs.slack.dev/reference/methods/chat.postMessage#errors; the webhook's:
https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors.
"""

from __future__ import annotations

from typing import Any

from trunkline.core.errors import FatalError, RetriableError, code_from
from trunkline.core.http import HttpResponse
from trunkline.core.redaction import excerpt
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

_ACCOUNT = frozenset(
    {
        "access_denied",
        "accesslimited",
        "account_inactive",
        "deprecated_endpoint",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "invalid_auth",
        "method_deprecated",
        "missing_scope",
        "no_permission",
        "not_allowed_token_type",
        "not_authed",
        "org_login_required",
        "team_access_not_granted",
        "token_expired",
        "token_revoked",
        "two_factor_setup_required",
    }
)
_CHANNEL = frozenset(
    {
        "channel_is_archived",
        "channel_not_found",
        "is_archived",
        "messages_tab_disabled",
        "not_in_channel",
        "posting_to_general_channel_denied",
        "user_not_found",
    }
)
_CHANNEL_PREFIXES = ("restricted_action", "cannot_post", "action_prohibited")
_PASSING = frozenset(
    {
        "message_limit_exceeded",
        "rate_limited",
        "ratelimited",
        "request_timeout",
        "service_unavailable",
        "team_added_to_org",
    }
)
# "It's possible some aspect of the operation succeeded before the error was raised."
_DOUBTFUL = frozenset({"fatal_error", "internal_error", "rollup_error"})
_WEBHOOK_GONE = frozenset(
    {"invalid_token", "no_active_hooks", "no_service", "no_service_id", "no_team", "team_disabled"}
)


def api_verdict(response: HttpResponse) -> Verdict:
    """The verdict of a chat.postMessage answer. Raises `FatalError` when the token or the account is refused."""
    early = _status_verdict(response)
    if early is not None:
        return early
    answer = api_answer(response)
    if answer is None:
        return Unknown(f"what answered for Slack sent no JSON object (status {response.status})")
    if answer.get("ok") is True:
        return Ok(f"{answer.get('channel', '')}/{answer.get('ts', '')}")
    code = str(answer.get("error", "no reason given"))
    return _code_verdict(code, _details(answer), response.retry_after(), fatal=_ACCOUNT)


def webhook_verdict(response: HttpResponse) -> Verdict:
    """The verdict of an incoming webhook's answer. Raises `FatalError` when the webhook was taken away."""
    early = _status_verdict(response)
    if early is not None:
        return early
    code = excerpt(response.text.strip(), 200)
    if response.ok:
        # A proxy's page with status 200 is no receipt.
        return Ok() if code == "ok" else Unknown("what answered for Slack's webhook did not say ok")
    verdict = _code_verdict(code, "", response.retry_after(), fatal=_WEBHOOK_GONE)
    if isinstance(verdict, Dead) and response.status in (403, 404, 410):
        return Dead(verdict.reason, code=verdict.code, access=True)
    return verdict


def api_answer(response: HttpResponse) -> dict[str, Any] | None:
    """The JSON object of an answer, or None where it is none."""
    try:
        found = response.json()
    except RetriableError:
        return None
    return found if isinstance(found, dict) else None


def _status_verdict(response: HttpResponse) -> Verdict | None:
    """The verdict where the status alone decides."""
    if response.status == 401:
        raise _refused("unauthorized", "")
    if response.status == 429:
        return Retry(
            "Slack asks to slow down (429)", response.retry_after(), "slack.rate_limited", "messages a channel"
        )
    if response.status == 503:
        return Retry("Slack is unavailable (503)", response.retry_after(), "slack.unavailable")
    if response.status >= 500 or response.status == 408:
        return Unknown(f"Slack answered {response.status}, which leaves open whether it posted", "slack.doubtful")
    return None


def _code_verdict(code: str, details: str, after: float | None, *, fatal: frozenset[str]) -> Verdict:
    reason = f"Slack refused the message: {code}{details}"
    if code in fatal:
        raise _refused(code, details)
    if code in _PASSING:
        return Retry(reason, after, f"slack.{code}", code if "limit" in code else None)
    if code in _DOUBTFUL:
        return Unknown(reason, f"slack.{code}")
    access = code in _CHANNEL or code.startswith(_CHANNEL_PREFIXES)
    return Dead(reason, code=f"slack.{code_from(code, 'refused')}", access=access)


def _refused(code: str, details: str) -> FatalError:
    return FatalError(
        f"Slack refuses the connection: {code}{details}",
        hint="check the app's token and scopes, or make a new webhook",
        code="slack.credentials",
    )


def _details(answer: dict[str, Any]) -> str:
    """What Slack adds to an error code: which block is bad, which scope is missing."""
    metadata = answer.get("response_metadata")
    messages = metadata.get("messages") if isinstance(metadata, dict) else None
    parts = [str(each) for each in messages[:3]] if isinstance(messages, list) else []
    if answer.get("needed"):
        parts.append(f"needs the scope {answer['needed']}")
    return f" ({excerpt('; '.join(parts), 500)})" if parts else ""
