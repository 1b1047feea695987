"""Access to what an aiohttp application serves: each route has a rule, and a middleware judges every request by it."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import hdrs, web

from trunkline.core.access.directory import DeniedError, Directory
from trunkline.core.access.principals import NOBODY, Caller
from trunkline.core.access.rules import Rule, judge
from trunkline.core.log import get_logger
from trunkline.core.serving.refusals import json_refusal

log = get_logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CALLER: Final = web.RequestKey("trunkline.caller", Caller)
_FORWARDED: Final = re.compile(
    r"forwarded|via|cdn-loop|x-(?:original-)?forwarded-.*|x-real-ip|x-envoy-external-address"
    r"|(?:x-)?(?:[a-z]+-)?(?:connecting|client|cluster-client)-?ip",
    re.IGNORECASE,
)
"""Headers by which proxies tell of whom a request is, or that they passed it on."""
_SIGN_IN: Final[dict[str, str]] = {
    hdrs.WWW_AUTHENTICATE: 'Basic realm="trunkline", charset="UTF-8", Bearer realm="trunkline"'
}


class Rules:
    """The rules of an application's routes."""

    def __init__(self) -> None:
        self.of: dict[web.AbstractRoute, Rule] = {}


RULES: Final = web.AppKey("trunkline.rules", Rules)


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in at one door.

    `anonymous` is who a request without a key is of: nobody, or on loopback a program of this machine. A request that was forwarded
    comes from elsewhere, whatever its connection says.
    """

    directory: Directory
    anonymous: Caller = NOBODY

    def caller(self, request: web.BaseRequest) -> Caller:
        """Who sends a request. Raises `DeniedError`."""
        found = self.directory.sign_in(request.headers, request.remote or "")
        if found is not None:
            return found
        return NOBODY if any(map(_FORWARDED.fullmatch, request.headers)) else self.anonymous


def asker(request: web.Request) -> str:
    """Who sent a request, for what is written down of it: the name of who signed in, else the address that it came from."""
    caller = request.get(CALLER)
    return (
        caller.name if caller is not None and caller.name else f"anonymous at {request.remote or 'an unknown address'}"
    )


def add_route(app: web.Application, method: str, path: str, handler: Handler, rule: Rule) -> None:
    """Serves a route under a rule. GET serves HEAD as well."""
    route = app.router.add_route(method, path, handler)
    keep_rule(app, route, rule)
    if method == hdrs.METH_GET:
        keep_rule(app, app.router.add_route(hdrs.METH_HEAD, path, handler), rule)


def keep_rule(app: web.Application, route: web.AbstractRoute, rule: Rule) -> None:
    """Notes the rule of a route that is there."""
    if RULES not in app:
        app[RULES] = Rules()
    app[RULES].of[route] = rule


def rules_of(app: web.Application) -> dict[web.AbstractRoute, Rule]:
    """Every route of an application and of those mounted in it, with its rule. Raises LookupError for one that has none."""
    found = dict(app[RULES].of) if RULES in app else {}
    for resource in app.router.resources():
        mounted = resource.get_info().get("app")
        if mounted is not None:
            found.update(rules_of(mounted))
    for route in app.router.routes():
        if route not in found:
            raise LookupError(f"the route {route.method} {_path(route)} has no rule: who may use it?")
    return found


def guarded(
    app: web.Application, access: Access, owner_of: Callable[[str], str | None] = lambda _name: None
) -> web.Application:
    """An application all of whose requests are judged, those to paths that do not exist as well. To be called when it has all its routes.

    `owner_of` knows the team of a topic or pipeline. Raises LookupError where a route has no rule.
    """
    rules = rules_of(app)

    @web.middleware
    async def judged(request: web.Request, handler: Handler) -> web.StreamResponse:
        rule = rules.get(request.match_info.route)
        rule = rule.of(request) if rule is not None else None
        try:
            caller = access.caller(request)
        except DeniedError as denied:
            if rule is None or not rule.public:
                return _refused(request, denied.status, denied.reason, denied.wait)
            caller = NOBODY
        target = rule.target(request) if rule is not None and rule.target is not None else None
        if target is not None and target.owner is None:
            target = replace(target, owner=owner_of(target.name))
        verdict = judge(rule, caller, target)
        exists = request.match_info.http_exception is None
        if not verdict.allowed and (exists or not caller.name):
            return _refused(request, verdict.status, verdict.reason)
        request[CALLER] = caller
        return await handler(request)

    app.middlewares.append(judged)
    return app


def _refused(request: web.Request, status: int, reason: str, wait: float = 0.0) -> web.Response:
    log.info(
        "a request was refused",
        status=status,
        reason=reason,
        method=request.method,
        path=request.path,
        remote=request.remote,
    )
    if status == 401:
        return json_refusal(status, "sign in with a key", _SIGN_IN)
    if status == 429:
        return json_refusal(status, "too many requests", {hdrs.RETRY_AFTER: str(max(1, math.ceil(wait)))})
    return json_refusal(status, "not allowed")


def _path(route: web.AbstractRoute) -> str:
    return route.resource.canonical if route.resource is not None else "?"
