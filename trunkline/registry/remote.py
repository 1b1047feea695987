"""What is asked of a registry over Confluent's REST interface, and the plain way of asking one on this machine.

Source: https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

from trunkline.core.jsontext import read_json

TIMEOUT_SECONDS: Final = 10.0
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RefusedError(Exception):
    """The registry answered with an error: its HTTP status, its own number, and what it says."""

    def __init__(self, status: int, number: int, message: str) -> None:
        super().__init__(message)
        self.status, self.number, self.message = status, number, message


class UnreachableError(Exception):
    """There was no answer."""


class OptionsError(Exception):
    """What was asked can't be asked so: a wrong URL, a certificate that is not trusted."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one refers to."""

    name: str
    subject: str
    version: int

    def as_dict(self) -> dict[str, Any]:
        """The form of the REST interface."""
        return {"name": self.name, "subject": self.subject, "version": self.version}


@dataclass(frozen=True, slots=True)
class RemoteSchema:
    """A schema as a registry gives it. `id` is None where the question named it."""

    text: str
    type: str
    references: Sequence[Reference]
    id: int | None = None


class Remote(Protocol):
    """The questions. Each raises RefusedError, UnreachableError or OptionsError."""

    def close(self) -> None:
        """Closes the connections."""

    def forget(self) -> None:
        """Asks anew from now on, where answers are kept."""

    def schema(self, schema_id: int) -> RemoteSchema:
        """The schema with an id."""

    def version(self, subject: str, version: int | str, *, deleted: bool = False) -> RemoteSchema:
        """One version of a subject, also of those that were deleted softly."""

    def subjects_of(self, schema_id: int) -> list[str]:
        """The subjects that an id belongs to, also by versions that were deleted softly (which not every registry tells)."""

    def lookup(self, subject: str, schema: RemoteSchema) -> int:
        """The id that a schema has under a subject, also of a version that was deleted softly."""

    def register(self, subject: str, text: str) -> int:
        """The id of an Avro schema under a subject, registered where it is new."""

    def subjects(self) -> list[str]:
        """All subjects."""

    def versions(self, subject: str, *, deleted: bool = False) -> list[int]:
        """The versions of a subject, also of those that were deleted softly."""

    def level(self, subject: str | None) -> str:
        """The compatibility level set for a subject, or the global one."""

    def set_level(self, subject: str | None, level: str) -> None:
        """Sets it."""


class LoopbackRegistry:
    """A registry on this machine: no TLS, no sign-in, no proxy, one request a connection.

    The client library for registries elsewhere takes a fifth of a worker's start to load.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = parts.path.rstrip("/")

    def close(self) -> None:
        """See `Remote`."""

    def forget(self) -> None:
        """See `Remote`."""

    def schema(self, schema_id: int) -> RemoteSchema:
        """See `Remote`."""
        return remote_schema(self._ask("GET", f"/schemas/ids/{schema_id}"))

    def version(self, subject: str, version: int | str, *, deleted: bool = False) -> RemoteSchema:
        """See `Remote`."""
        more = "?deleted=true" if deleted else ""
        return remote_schema(self._ask("GET", f"/subjects/{quote(subject, safe='')}/versions/{version}{more}"))

    def subjects_of(self, schema_id: int) -> list[str]:
        """See `Remote`."""
        found = self._ask("GET", f"/schemas/ids/{schema_id}/versions?deleted=true")
        return sorted({str(one["subject"]) for one in found})

    def lookup(self, subject: str, schema: RemoteSchema) -> int:
        """See `Remote`."""
        references = [one.as_dict() for one in schema.references]
        body = {"schema": schema.text, "schemaType": schema.type, "references": references}
        return int(self._ask("POST", f"/subjects/{quote(subject, safe='')}?deleted=true", body)["id"])

    def register(self, subject: str, text: str) -> int:
        """See `Remote`."""
        body = {"schema": text, "schemaType": "AVRO"}
        return int(self._ask("POST", f"/subjects/{quote(subject, safe='')}/versions", body)["id"])

    def subjects(self) -> list[str]:
        """See `Remote`."""
        return list(self._ask("GET", "/subjects"))

    def versions(self, subject: str, *, deleted: bool = False) -> list[int]:
        """See `Remote`."""
        more = "?deleted=true" if deleted else ""
        return list(self._ask("GET", f"/subjects/{quote(subject, safe='')}/versions{more}"))

    def level(self, subject: str | None) -> str:
        """See `Remote`."""
        return str(self._ask("GET", _config(subject))["compatibilityLevel"])

    def set_level(self, subject: str | None, level: str) -> None:
        """See `Remote`."""
        self._ask("PUT", _config(subject), {"compatibility": level})

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(*self._place, timeout=TIMEOUT_SECONDS)
        try:
            payload = json.dumps(body).encode() if body is not None else None
            connection.request(method, self._path + path, payload, {"Content-Type": _CONTENT_TYPE})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        try:
            found = read_json(text)
        except ValueError:
            found = text.decode("utf-8", "replace")
        if answer.status >= 400:
            data = found if isinstance(found, dict) else {}
            number = data.get("error_code", answer.status)
            raise RefusedError(
                answer.status,
                number if isinstance(number, int) else answer.status,
                str(data.get("message", found))[:500],
            )
        return found


def remote_schema(found: Any) -> RemoteSchema:
    """A schema from a registry's JSON. Raises RefusedError for what is none."""
    if not isinstance(found, dict) or not isinstance(found.get("schema"), str):
        raise RefusedError(200, 0, f"no schema: {str(found)[:200]}")
    references = [
        Reference(str(one.get("name")), str(one.get("subject")), int(one.get("version") or -1))
        for one in found.get("references") or ()
    ]
    return RemoteSchema(found["schema"], found.get("schemaType") or "AVRO", references, found.get("id"))


def _config(subject: str | None) -> str:
    return "/config" if subject is None else f"/config/{quote(subject, safe='')}"
