"""Rules: what each route asks of its caller, and the judgement of one request. A route without a rule can't be served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from trunkline.core.access.principals import Caller
from trunkline.core.access.roles import Permission, Target


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks. `target` finds in a request what it is about; without one the route is about the bus as a whole.

    `instead` finds what a request asks in place of `permission`, where it wants more than others of its route do.
    """

    permission: Permission | None
    target: Callable[[Any], Target] | None = None
    instead: Callable[[Any], Permission | None] | None = None

    def of(self, request: Any) -> Rule:
        """The rule of one request."""
        found = self.instead(request) if self.instead is not None else None
        return self if found is None else Rule(found, self.target)

    @property
    def public(self) -> bool:
        """Whether anybody may, also without signing in."""
        return self.permission is None


PUBLIC: Final = Rule(None)
"""Health, and what judges its callers by itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """200 for what is allowed, else the status of the refusal with its reason for the log."""

    status: int
    reason: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the request is answered."""
        return self.status == 200


def judge(rule: Rule | None, caller: Caller, target: Target | None) -> Verdict:
    """What becomes of a request of this caller. Without a rule nobody may: deny by default."""
    if rule is not None and rule.permission is None:
        return Verdict(200)
    if rule is not None and rule.permission is not None and caller.principal.may(rule.permission, target):
        return Verdict(200)
    if not caller.name:
        return Verdict(401, "nobody signed in")
    wanted = rule.permission if rule is not None else "anything here"
    about = f" of {target.name}" if target is not None else ""
    return Verdict(403, f"{caller.name} may not do {wanted}{about}")
