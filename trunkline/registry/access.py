"""What each route of the registry asks of its caller."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from trunkline.core.access.roles import Permission, Target
from trunkline.core.access.rules import Rule
from trunkline.registry.parameters import flag

_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_ASKING: Final = ("/subjects/{subject}", "/compatibility/")
"""POST that changes nothing: which version a schema is, and whether it would be compatible."""


def rule_of(method: str, path: str) -> Rule:
    """The rule of a route by its canonical path. Raises LookupError for one that nobody has thought of."""
    asks = method == hdrs.METH_POST and (path == _ASKING[0] or path.startswith(_ASKING[1]))
    if method in _READING or asks:
        return Rule(Permission.SCHEMA_READ)
    if method in (hdrs.METH_POST, hdrs.METH_PUT, hdrs.METH_DELETE):
        if path.startswith("/mode") and method != hdrs.METH_POST:
            # Also that of one subject: in import mode it gives ids, and those are everybody's.
            return Rule(Permission.REGISTRY_CONFIGURE)
        if "{subject" in path:
            return Rule(Permission.SCHEMA_WRITE, _subject, _for_good if method == hdrs.METH_DELETE else None)
        if path == "/config" and method != hdrs.METH_POST:
            return Rule(Permission.REGISTRY_CONFIGURE)
    raise LookupError(f"the route {method} {path} of the registry has no rule: who may use it?")


def _for_good(request: web.Request) -> Permission | None:
    # Records that were written with the schema can't be read any more.
    return Permission.REGISTRY_CONFIGURE if flag(request, "permanent") else None


def _subject(request: web.Request) -> Target:
    # Under Confluent's default strategy a subject is its topic's name and one of these; under the others it has a name of its own.
    subject = request.match_info["subject"]
    return Target(subject.removesuffix("-value") if subject.endswith("-value") else subject.removesuffix("-key"))
