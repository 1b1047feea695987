"""The registry's REST interface, as Confluent's registry has it, so that every client of that one works.

Source: https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar

from aiohttp import hdrs, web

from trunkline.core.serving.guarding import asker, keep_rule
from trunkline.core.serving.listener import Listener
from trunkline.registry import errors, rules
from trunkline.registry.access import rule_of
from trunkline.registry.candidate import Judgement, UnjudgedError
from trunkline.registry.compatibility import MAX_REASONS
from trunkline.registry.errors import RegistryError
from trunkline.registry.judges import Judges
from trunkline.registry.negotiation import V1_JSON, answer_type, require_content_type
from trunkline.registry.parameters import (
    flag,
    json_body,
    number,
    page,
    subject_prefix,
    wanted_id,
    wanted_subject,
    which_deleted,
)
from trunkline.registry.rules import Decide
from trunkline.registry.state import State, Version
from trunkline.registry.steps import AbandonedError
from trunkline.registry.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)

CONTENT_TYPE: Final = V1_JSON
_ANSWERED_IN: Final = web.RequestKey("answered in", str)
_PIECE: Final = 1 << 16
_MOST_ATTEMPTS: Final = 20
"""How often a schema is judged anew because others write to its subject meanwhile."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def registry_app(store: Store) -> web.Application:
    """The interface over a started store, to be mounted anywhere: `app.add_subapp("/registry", registry_app(store))`."""
    app = web.Application(middlewares=[_answer_errors])
    service = _Service(store)
    service.add_routes(app.router)
    app.on_shutdown.append(service.close)
    for route in app.router.routes():
        assert route.resource is not None
        keep_rule(app, route, rule_of(route.method, route.resource.canonical))
    return app


async def serve_registry(store: Store, host: str = "127.0.0.1", port: int = 0) -> Listener:
    """Serve the interface alone. The listener is to be stopped by the caller."""
    listener = Listener("registry", (host, port), "choose another address")
    await listener.start(web.AppRunner(registry_app(store)))
    return listener


class _Service:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.judges = Judges()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        # Written out: of itself a part of a path has no braces.
        subject = "/subjects/{subject:[^/]+}"
        version = subject + "/versions/{version:[^/]+}"
        router.add_get("/", self.root)
        router.add_get("/subjects", self.subjects)
        router.add_post(subject, self.lookup)
        router.add_delete(subject, self.delete_subject)
        router.add_get(subject + "/versions", self.versions)
        router.add_post(subject + "/versions", self.register)
        router.add_get(version, self.version)
        router.add_delete(version, self.delete_version)
        router.add_get(version + "/schema", self.version_schema)
        router.add_get(version + "/referencedby", self.referenced_by)
        router.add_get("/schemas", self.schemas)
        router.add_get("/schemas/types", self.types)
        router.add_get("/schemas/ids/{id:[^/]+}", self.by_id)
        router.add_get("/schemas/ids/{id:[^/]+}/schema", self.by_id_schema)
        router.add_get("/schemas/ids/{id:[^/]+}/subjects", self.by_id_subjects)
        router.add_get("/schemas/ids/{id:[^/]+}/versions", self.by_id_versions)
        router.add_post("/compatibility" + subject + "/versions", self.compatible)
        router.add_post("/compatibility" + version, self.compatible)
        for path in ("/config", "/config/{subject:[^/]+}"):
            router.add_get(path, self.level)
            router.add_put(path, self.set_level)
            router.add_delete(path, self.delete_level)
        for path in ("/mode", "/mode/{subject:[^/]+}"):
            router.add_get(path, self.mode)
            router.add_put(path, self.set_mode)
            router.add_delete(path, self.delete_mode)
        router.add_get("/contexts", self.contexts)
        router.add_get("/v1/metadata/id", self.metadata_id)

    async def ask(self, question: Callable[[State], T]) -> T:
        """What is not found is looked for again after reading on: another process may have just written it."""
        try:
            return self.store.view(question)
        except RegistryError as error:
            if error.status != 404:
                raise
        await self.store.refresh()
        return self.store.view(question)

    async def consider(self, request: web.Request, judgement: Judgement, question: Callable[[State], T]) -> T:
        """Like `ask`, for questions that judge a schema; a missing reference may be new as well."""

        def answer() -> T:
            return question(self.store.view(State.copy))

        try:
            return await self.judges.judge(request, judgement.steps, answer)
        except RegistryError as error:
            if error.status not in {404, 422} or judgement.hopeless:
                raise
        await self.store.refresh()
        return await self.judges.judge(request, judgement.steps, answer)

    async def close(self, _app: web.Application) -> None:
        self.judges.close()

    async def write(self, request: web.Request, decide: Decide[T]) -> T:
        """Writes what a request asks for, in the name of who sent it."""
        return await self.store.write(decide, asker(request))

    async def root(self, request: web.Request) -> web.Response:
        return _json(request, {})

    async def contexts(self, request: web.Request) -> web.Response:
        return _json(request, ["."])

    async def types(self, request: web.Request) -> web.Response:
        return _json(request, ["AVRO"])

    async def metadata_id(self, request: web.Request) -> web.Response:
        return _json(
            request, {"id": "", "scope": {"path": [], "clusters": {"schema-registry-cluster": "schema-registry"}}}
        )

    async def subjects(self, request: web.Request) -> web.Response:
        prefix = subject_prefix(request)
        deleted = which_deleted(request)

        def question(state: State) -> list[str]:
            return sorted(each for each in state.subjects if each.startswith(prefix) and _chosen(state, each, deleted))

        return _json(request, page(request, self.store.view(question)))

    async def versions(self, request: web.Request) -> web.Response:
        subject, deleted = request.match_info["subject"], which_deleted(request)

        def question(state: State) -> list[int]:
            found = _chosen(state, subject, deleted)
            if not found:
                raise errors.subject_not_found(subject)
            return [each.version for each in found]

        return _json(request, page(request, await self.ask(question)))

    async def version(self, request: web.Request) -> web.Response:
        return _json(request, _described(await self.wanted(request)))

    async def version_schema(self, request: web.Request) -> web.Response:
        return _text(request, (await self.wanted(request)).schema.text)

    async def wanted(self, request: web.Request) -> Version:
        subject, version, deleted = (
            request.match_info["subject"],
            request.match_info["version"],
            flag(request, "deleted"),
        )
        return await self.ask(lambda state: rules.version_of(state, subject, version, deleted=deleted))

    async def referenced_by(self, request: web.Request) -> web.Response:
        subject, version = request.match_info["subject"], request.match_info["version"]

        def question(state: State) -> list[int]:
            found = rules.version_of(state, subject, version)
            return sorted({each.id for each in state.uses(subject, found.version)})

        return _json(request, page(request, await self.ask(question)))

    async def schemas(self, request: web.Request) -> web.StreamResponse:
        prefix, deleted, latest = subject_prefix(request), which_deleted(request), flag(request, "latestOnly")

        def question(state: State) -> list[Version]:
            found = [_chosen(state, each, deleted) for each in sorted(state.subjects) if each.startswith(prefix)]
            return [each for versions in found for each in (versions[-1:] if latest else versions)]

        return await _each(request, page(request, self.store.view(question)))

    async def by_id(self, request: web.Request) -> web.Response:
        wanted = wanted_id(request)

        def question(state: State) -> dict[str, Any]:
            found = state.by_id.get(wanted)
            if found is None:
                raise errors.schema_not_found(str(wanted))
            answer: dict[str, Any] = {"schema": found.text}
            if found.references:
                answer["references"] = [ref.as_dict() for ref in found.references]
            if flag(request, "fetchMaxId"):
                answer["maxId"] = state.highest_id
            return answer

        return _json(request, await self.ask(question))

    async def by_id_schema(self, request: web.Request) -> web.Response:
        wanted = wanted_id(request)

        def question(state: State) -> str:
            found = state.by_id.get(wanted)
            if found is None:
                raise errors.schema_not_found(str(wanted))
            return found.text

        return _text(request, await self.ask(question))

    async def uses_of_id(self, request: web.Request) -> list[Version]:
        wanted, deleted, subject = wanted_id(request), flag(request, "deleted"), request.query.get("subject")

        def question(state: State) -> list[Version]:
            if wanted not in state.by_id:
                raise errors.schema_not_found(str(wanted))
            return [each for each in state.of_id(wanted, deleted=deleted) if subject in (None, "", each.subject)]

        return await self.ask(question)

    async def by_id_subjects(self, request: web.Request) -> web.Response:
        found = await self.uses_of_id(request)
        return _json(request, page(request, list(dict.fromkeys(each.subject for each in found))))

    async def by_id_versions(self, request: web.Request) -> web.Response:
        found = await self.uses_of_id(request)
        return _json(request, page(request, [{"subject": each.subject, "version": each.version} for each in found]))

    async def lookup(self, request: web.Request) -> web.Response:
        subject, body = request.match_info["subject"], await json_body(request)
        deleted, judgement = flag(request, "deleted"), Judgement(body, normalize=flag(request, "normalize"))

        def question(state: State) -> Version:
            return rules.lookup(state, subject, judgement.candidate(state), deleted=deleted)

        return _json(request, _described(await self.consider(request, judgement, question)))

    async def register(self, request: web.Request) -> web.Response:
        subject, body = wanted_subject(request), await json_body(request)
        judgement = Judgement(body, normalize=flag(request, "normalize"))
        registration = rules.Registration(
            subject, judgement, schema_id=number(body, "id"), version=number(body, "version")
        )
        for _ in range(_MOST_ATTEMPTS):
            await self.judges.judge(request, judgement.steps, lambda: registration.judge(self.store.view(State.copy)))
            try:
                made = await self.write(request, registration.decide)
            except UnjudgedError:
                continue  # somebody else wrote what it has to be compared with
            return _json(request, {"id": made.id, "version": made.version})
        raise RegistryError(errors.STORE_TIMED_OUT, f"The subject {subject!r} is written by others all the time")

    async def delete_subject(self, request: web.Request) -> web.Response:
        subject, permanent = request.match_info["subject"], flag(request, "permanent")
        return _json(request, await self.write(request, rules.delete_subject(subject, permanent=permanent)))

    async def delete_version(self, request: web.Request) -> web.Response:
        subject, version = request.match_info["subject"], request.match_info["version"]
        decide = rules.delete_version(subject, version, permanent=flag(request, "permanent"))
        return _json(request, await self.write(request, decide))

    async def compatible(self, request: web.Request) -> web.Response:
        subject, version = request.match_info["subject"], request.match_info.get("version")
        judgement = Judgement(await json_body(request), normalize=flag(request, "normalize"))

        def question(state: State) -> tuple[str, list[Any]]:
            judgement.candidate(state)
            held = state.versions(subject) if version is None else [rules.version_of(state, subject, version)]
            level = state.level(subject)
            return level, judgement.incompatible(state, level, held)

        level, broken = await self.consider(request, judgement, question)
        answer: dict[str, Any] = {"is_compatible": not broken}
        if flag(request, "verbose"):
            answer["messages"] = _messages(level, broken[:MAX_REASONS])
        return _json(request, answer)

    async def level(self, request: web.Request) -> web.Response:
        subject = request.match_info.get("subject")

        def question(state: State) -> str:
            if subject is None or flag(request, "defaultToGlobal"):
                return state.level(subject or "")
            found = state.levels.get(subject)
            if found is None:
                raise rules.level_not_found(subject)
            return found

        return _json(request, {"compatibilityLevel": await self.ask(question)})

    async def set_level(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        level = await self.write(request, rules.set_level(request.match_info.get("subject"), body.get("compatibility")))
        return _json(request, {"compatibility": level})

    async def delete_level(self, request: web.Request) -> web.Response:
        old = await self.write(request, rules.delete_level(request.match_info.get("subject")))
        return _json(request, {"compatibilityLevel": old})

    async def mode(self, request: web.Request) -> web.Response:
        subject = request.match_info.get("subject")

        def question(state: State) -> str:
            if subject is not None and subject not in state.modes and not flag(request, "defaultToGlobal"):
                raise rules.mode_not_found(subject)
            return state.mode(subject)

        return _json(request, {"mode": await self.ask(question)})

    async def set_mode(self, request: web.Request) -> web.Response:
        body, subject = await json_body(request), request.match_info.get("subject")
        mode = await self.write(request, rules.set_mode(subject, body.get("mode"), force=flag(request, "force")))
        return _json(request, {"mode": mode})

    async def delete_mode(self, request: web.Request) -> web.Response:
        return _json(request, {"mode": await self.write(request, rules.delete_mode(request.match_info.get("subject")))})


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        if request.match_info.http_exception is None:
            require_content_type(request.headers.get("Content-Type"))
            request[_ANSWERED_IN] = answer_type(request.headers.get("Accept"))
        return await handler(request)
    except RegistryError as error:
        return _error(request, error.status, error.number, error.message)
    except AbandonedError:
        return _error(request, 503, 503, "The registry is stopping")  # or the client is gone, and nobody reads it
    except web.HTTPException as error:
        return _error(request, error.status, error.status, f"HTTP {error.status} {error.reason}")
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(request, 500, 500, "Internal Server Error")


def _error(request: web.Request, status: int, number: int, message: str) -> web.Response:
    return _json(request, {"error_code": number, "message": message}, status=status)


def _json(request: web.Request, answer: Any, status: int = 200) -> web.Response:
    return _text(request, json.dumps(answer, ensure_ascii=False), status)


def _text(request: web.Request, text: str, status: int = 200) -> web.Response:
    body = text.encode("utf-8", "backslashreplace")
    return web.Response(body=body, status=status, content_type=request.get(_ANSWERED_IN, V1_JSON))


async def _each(request: web.Request, found: Iterable[Version]) -> web.StreamResponse:
    """A list of versions, written one after another: together they may be larger than memory, and others want their turn."""
    response = web.StreamResponse()
    response.content_type = request.get(_ANSWERED_IN, V1_JSON)
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    before = b"["
    with suppress(ConnectionError):  # its client is gone, and nobody reads the rest
        for each in found:
            text = before + json.dumps(_described(each), ensure_ascii=False).encode("utf-8", "backslashreplace")
            for start in range(0, len(text), _PIECE):
                # What is written waits in memory until the client reads.
                await response.write(text[start : start + _PIECE])
                await asyncio.sleep(0)
            before = b", "
        await response.write(b"[]" if before == b"[" else b"]")
        await response.write_eof()
    return response


def _chosen(state: State, subject: str, deleted: str) -> list[Version]:
    found = state.versions(subject, deleted=deleted != "no")
    return [each for each in found if each.deleted] if deleted == "only" else found


def _described(each: Version) -> dict[str, Any]:
    answer: dict[str, Any] = {"subject": each.subject, "version": each.version, "id": each.id}
    if each.kind != "AVRO":
        answer["schemaType"] = each.kind
    if each.schema.references:
        answer["references"] = [ref.as_dict() for ref in each.schema.references]
    return answer | {"schema": each.schema.text}


def _messages(level: str, broken: Iterable[tuple[Version, Any]]) -> list[str]:
    found = list(broken)
    lines = [
        json.dumps(
            {
                "errorType": each.kind,
                "description": f"{each.message} (at path '{each.path}', version {old.version})",
                "additionalInfo": each.detail,
            }
        )
        for old, each in found
    ]
    if found:
        oldest = found[-1][0]
        lines += [f"{{oldSchemaVersion: {oldest.version}}}", f"{{oldSchema: '{oldest.schema.text}'}}"]
        lines.append(f"{{compatibility: '{level}'}}")
    return lines
