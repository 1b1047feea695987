"""Outgoing HTTP. Every request of every plug-in and of the engine goes through `HttpClient`."""

from __future__ import annotations

from trunkline.core.http.address import AddressPolicy
from trunkline.core.http.auth import (
    AnyHttpAuth,
    ApiKeyAuth,
    Authorizer,
    BasicAuth,
    BearerAuth,
    HttpAuth,
    NoAuth,
    OAuth2Auth,
    Token,
    TokenAuthorizer,
)
from trunkline.core.http.client import HttpClient
from trunkline.core.http.errors import AddressRefusedError, AnswerTooLargeError, NoAnswerError, NotSentError
from trunkline.core.http.oauth2 import learn_tokens, token_from_response
from trunkline.core.http.options import HttpOptions
from trunkline.core.http.response import HttpResponse, classify_status
from trunkline.core.http.url import check_header, check_url

__all__ = [
    "AddressPolicy",
    "AddressRefusedError",
    "AnswerTooLargeError",
    "AnyHttpAuth",
    "ApiKeyAuth",
    "Authorizer",
    "BasicAuth",
    "BearerAuth",
    "HttpAuth",
    "HttpClient",
    "HttpOptions",
    "HttpResponse",
    "NoAnswerError",
    "NoAuth",
    "NotSentError",
    "OAuth2Auth",
    "Token",
    "TokenAuthorizer",
    "check_header",
    "check_url",
    "classify_status",
    "learn_tokens",
    "token_from_response",
]
