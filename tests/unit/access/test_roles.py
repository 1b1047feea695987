"""What each role may do, to what, as a table."""

from __future__ import annotations

import pytest

from trunkline.core.access.principals import NOBODY, Principal, local
from trunkline.core.access.roles import Grant, Permission, Role, Target

OWN, FOREIGN = Target("orders", "sales"), Target("salaries", "people")


def may(*grants: Grant, target: Target | None = None, team: str | None = None) -> set[Permission]:
    return {one for one in Permission if Principal("p", grants, team).may(one, target)}


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.VIEWER, {"status.read", "schema.read"}),
        (Role.PRODUCER, {"schema.read", "event.write"}),
        (Role.CONSUMER, {"schema.read", "event.read"}),
        (Role.ENGINEER, {"status.read", "schema.read", "schema.write", "manifest.apply"}),
        (Role.OPERATOR, {"status.read", "schema.read", "pipeline.operate", "log.level", "audit.read"}),
        (Role.ADMIN, {str(one) for one in Permission}),
    ],
)
def test_a_role_may_do_this_and_nothing_else(role: Role, expected: set[str]) -> None:
    assert may(Grant(role)) == expected
    assert may(Grant(role), target=FOREIGN) == expected


@pytest.mark.parametrize("role", list(Role))
def test_a_grant_on_some_topics_reaches_no_other_one_and_not_the_bus_as_a_whole(role: Role) -> None:
    grant = Grant(role, ("orders", "orders.*"))
    about_an_object = {"schema.write", "event.write", "event.read", "pipeline.operate", "manifest.apply"}
    assert may(grant, target=OWN) == may(Grant(role)) & (about_an_object | {"schema.read"})
    assert may(grant, target=Target("orders.eu")) == may(grant, target=OWN)
    for target in (FOREIGN, Target("orders2"), Target("Orders"), None):
        assert may(grant, target=target) == may(Grant(role)) & {"schema.read"}


def test_own_is_what_the_team_owns() -> None:
    grant = Grant(Role.ENGINEER, ("own",))
    assert Permission.SCHEMA_WRITE in may(grant, target=OWN, team="sales")
    for target, team in (
        (FOREIGN, "sales"),
        (OWN, None),
        (Target("orders"), "sales"),
        (Target("own"), "sales"),
        (None, "sales"),
    ):
        assert Permission.SCHEMA_WRITE not in may(grant, target=target, team=team)


def test_grants_add_up_and_who_has_none_may_nothing() -> None:
    both = may(Grant(Role.PRODUCER, ("orders",)), Grant(Role.CONSUMER, ("salaries",)), target=OWN)
    assert both == {"schema.read", "event.write"}
    assert may() == set()
    assert not any(NOBODY.principal.may(one) for one in Permission)
    assert local(None) is NOBODY
    assert local(Role.ADMIN).principal.may(Permission.KEY_MANAGE)
