"""Roles, and what each of them may do. What no role names, nobody may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final


class Permission(StrEnum):
    """One kind of thing that somebody may do."""

    STATUS_READ = "status.read"
    """How workers and pipelines stand: states, causes, lag, metrics."""
    SCHEMA_READ = "schema.read"
    """Schemas are contracts between teams: who may read any may read all."""
    SCHEMA_WRITE = "schema.write"
    """Register and delete schemas of a subject, and set its compatibility."""
    REGISTRY_CONFIGURE = "registry.configure"
    """Settings of the registry as a whole, modes, and deleting for good."""
    EVENT_WRITE = "event.write"
    EVENT_READ = "event.read"
    PIPELINE_OPERATE = "pipeline.operate"
    """Pause, resume, stop, set offsets, redrive, decide about what is parked."""
    MANIFEST_APPLY = "manifest.apply"
    LOG_LEVEL = "log.level"
    KEY_MANAGE = "key.manage"
    AUDIT_READ = "audit.read"


class Role(StrEnum):
    """What somebody is for the bus."""

    VIEWER = "viewer"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    ENGINEER = "engineer"
    OPERATOR = "operator"
    ADMIN = "admin"


_VIEWER: Final = frozenset({Permission.STATUS_READ, Permission.SCHEMA_READ})
MAY: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.VIEWER: _VIEWER,
    Role.PRODUCER: frozenset({Permission.SCHEMA_READ, Permission.EVENT_WRITE}),
    Role.CONSUMER: frozenset({Permission.SCHEMA_READ, Permission.EVENT_READ}),
    Role.ENGINEER: _VIEWER | {Permission.SCHEMA_WRITE, Permission.MANIFEST_APPLY},
    Role.OPERATOR: _VIEWER | {Permission.PIPELINE_OPERATE, Permission.LOG_LEVEL, Permission.AUDIT_READ},
    Role.ADMIN: frozenset(Permission),
}
_OF_ALL: Final = frozenset(
    {
        Permission.STATUS_READ,
        Permission.SCHEMA_READ,
        Permission.REGISTRY_CONFIGURE,
        Permission.LOG_LEVEL,
        Permission.KEY_MANAGE,
        Permission.AUDIT_READ,
    }
)
"""What concerns no object of its own: who may do it may do it altogether, whatever objects the grant names."""
OWN: Final = "own"
EVERYTHING: Final = "*"


@dataclass(frozen=True, slots=True)
class Target:
    """What something is done to: a topic or a pipeline, by name, with the team that owns it where that is known.

    A subject of the registry stands for its topic.
    """

    name: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, and on which topics and pipelines: names with `*`, or `own` for what the team owns."""

    role: Role
    on: tuple[str, ...] = (EVERYTHING,)

    def allows(self, permission: Permission, target: Target | None, team: str | None) -> bool:
        """Whether it lets a member of `team` do this. Without a target it is asked of the bus as a whole."""
        if permission not in MAY[self.role]:
            return False
        if permission in _OF_ALL:
            # A grant on some topics gives no say in what concerns all of them.
            return permission is Permission.SCHEMA_READ or EVERYTHING in self.on
        if target is None:
            return EVERYTHING in self.on
        return any(self._fits(one, target, team) for one in self.on)

    @staticmethod
    def _fits(pattern: str, target: Target, team: str | None) -> bool:
        if pattern == OWN:
            return team is not None and target.owner == team
        return fnmatchcase(target.name, pattern)
