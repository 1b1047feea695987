"""The REST resources of the stand-in org: what a path and a body do to its records.

Paths and shapes: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_list.htm
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sinks.salesforce.mock import soql
from sinks.salesforce.mock.org import Org, Record, each
from sinks.salesforce.mock.schema import describe_object
from sinks.salesforce.mock.values import RequestError, RowError

PAGE = 2000
VERSIONS = ("58.0", "59.0", "60.0", "61.0", "62.0", "63.0", "64.0", "65.0", "66.0")


@dataclass(frozen=True, slots=True)
class Call:
    """A request after its path was cut: `segments` follow `/services/data/vXX.X/`."""

    method: str
    version: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """Whether it delivers records."""
        return self.method in {"POST", "PUT", "PATCH", "DELETE"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body, or no body."""

    status: int
    body: Any = None


class _Found(NamedTuple):
    """What a query found, for the pages that are still to be asked for."""

    object: str
    fields: list[str]
    records: Sequence[Mapping[str, Any]]


class RestApi:
    """Answers REST calls. `limits` gives what the limits resource says."""

    def __init__(self, org: Org, limits: Callable[[], dict[str, Any]]) -> None:
        self._org = org
        self._limits = limits
        self._pages: dict[str, _Found] = {}
        self._queries = 0

    def answer(self, call: Call) -> Answer:
        """What the org answers. Raises `RequestError` when the whole request is refused."""
        match call.method, call.segments:
            case "GET", ():
                return Answer(
                    200, {name: f"/services/data/v{call.version}/{name}" for name in ("sobjects", "query", "limits")}
                )
            case "GET", ("limits",):
                return Answer(200, self._limits())
            case "GET", ("sobjects",):
                found = [
                    describe_object(name, spec, call.version, brief=True) for name, spec in self._org.objects.items()
                ]
                return Answer(200, {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": found})
            case "GET", ("query" | "queryAll" as kind,):
                return self._query(call, deleted=kind == "queryAll")
            case "GET", ("query" | "queryAll", locator):
                return self._more(call, locator)
            case _, ("sobjects", name, *rest):
                return self._single(call, self._org.object_name(name), rest)
            case _, ("composite", "sobjects", *rest):
                return self._collection(call, rest)
        raise RequestError(404, "NOT_FOUND", "The requested resource does not exist")

    # --- one record ---

    def _single(self, call: Call, obj: str, rest: list[str]) -> Answer:
        org = self._org
        match call.method, rest:
            case "GET", []:
                spec = org.objects[obj]
                return Answer(
                    200, {"objectDescribe": describe_object(obj, spec, call.version, brief=True), "recentItems": []}
                )
            case "GET", ["describe"]:
                return Answer(200, describe_object(obj, org.objects[obj], call.version))
            case "POST", []:
                return self._one(lambda: self._created(obj, call.body))
            case "GET", [rid]:
                return Answer(200, org.full(obj, org.find(obj, rid)))
            case "PATCH", [rid]:
                return self._one(lambda: self._changed(obj, org.find(obj, rid)["Id"], call.body))
            case "DELETE", [rid]:
                return self._one(lambda: self._deleted(org.find(obj, rid)["Id"]))
            case _, [name, value]:
                known = org.external_field(obj, name)
                if call.method == "PATCH":
                    return self._one(lambda: self._upserted(obj, known, {**(call.body or {}), known: value}))
                found = org.find_external(obj, known, value)
                if found is None:
                    raise RequestError(404, "NOT_FOUND", "The requested resource does not exist")
                if call.method == "GET":
                    return Answer(200, org.full(obj, found))
                if call.method == "DELETE":
                    return self._one(lambda: self._deleted(found["Id"]))
        raise RequestError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{call.method}' not allowed.")

    def _one(self, act: Callable[[], Answer]) -> Answer:
        self._org.attempts += 1
        try:
            return act()
        except RowError as error:
            raise RequestError(400, error.code, error.message, error.fields) from error

    def _created(self, obj: str, body: Any) -> Answer:
        return Answer(201, {"id": self._org.create(obj, self._org.read(obj, body)), "success": True, "errors": []})

    def _changed(self, obj: str, rid: str, body: Any) -> Answer:
        self._org.update(obj, rid, self._org.read(obj, body))
        return Answer(204)

    def _deleted(self, rid: str) -> Answer:
        self._org.delete(rid)
        return Answer(204)

    def _upserted(self, obj: str, known: str, body: Any) -> Answer:
        rid, created = self._org.upsert(obj, known, self._org.read(obj, body))
        return Answer(201 if created else 200, {"id": rid, "success": True, "errors": [], "created": created})

    # --- collections ---

    def _collection(self, call: Call, rest: list[str]) -> Answer:
        org = self._org
        match call.method, rest:
            case "DELETE", []:
                ids = [rid for rid in call.query.get("ids", "").split(",") if rid]
                whole = call.query.get("allOrNone", "false") == "true"
                return self._each(ids, whole, lambda _, rid: self._removed(rid))
            case "GET", [name]:
                obj = org.object_name(name)
                table, ids = org.tables[obj], call.query.get("ids", "").split(",")
                names = [org.field(obj, each_name)[0] for each_name in call.query.get("fields", "Id").split(",")]
                rows = [table.get(rid) for rid in ids]
                return Answer(
                    200, [row and {"attributes": org.attributes(obj, row["Id"]), **_cut(row, names)} for row in rows]
                )
            case "POST" | "PATCH", [] | [_, _]:
                return self._write(call, rest)
        raise RequestError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{call.method}' not allowed.")

    def _write(self, call: Call, rest: list[str]) -> Answer:
        org = self._org
        if not isinstance(call.body, dict) or not isinstance(call.body.get("records"), list):
            raise RequestError(400, "JSON_PARSER_ERROR", "The request must have a list of records")
        rows = [self._typed(row) for _, row in each(call.body["records"])]
        whole = bool(call.body.get("allOrNone", False))
        if not rest:
            act = self._inserted if call.method == "POST" else self._updated
            return self._each(rows, whole, lambda _, row: act(*row))
        if call.method != "PATCH":
            raise RequestError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{call.method}' not allowed.")
        obj = org.object_name(rest[0])
        known = org.external_field(obj, rest[1])
        if any(kind != obj for kind, _ in rows):
            raise RequestError(400, "INVALID_TYPE", f"All records must be of the type {obj}")
        repeated = org.repeated(obj, known, [record for _, record in rows])

        def upsert(at: int, row: tuple[str, Record]) -> dict[str, Any]:
            if at in repeated:
                raise RowError("DUPLICATE_VALUE", f"Duplicate external id specified: {row[1][known]}", [known])
            rid, created = org.upsert(obj, known, row[1])
            return {"id": rid, "success": True, "errors": [], "created": created}

        return self._each(rows, whole, upsert)

    def _typed(self, row: Any) -> tuple[str, Record]:
        kind = row.get("attributes", {}).get("type") if isinstance(row, dict) else None
        if not kind:
            raise RequestError(400, "INVALID_INPUT", "Include an entity type in the attributes of each record")
        try:
            obj = self._org.object_name(kind)
        except RequestError as error:
            raise RequestError(400, "INVALID_TYPE", f"sObject type '{kind}' is not supported.") from error
        return obj, self._org.read(obj, row)

    def _each(self, rows: list[Any], whole: bool, act: Callable[[int, Any], dict[str, Any]]) -> Answer:
        numbered = each(rows)
        self._org.attempts += len(rows)
        results: list[dict[str, Any]] = []
        if not whole:
            for at, row in numbered:
                try:
                    results.append(act(at, row))
                except RowError as error:
                    results.append(error.result())
            return Answer(200, results)
        at = 0
        try:
            with self._org.all_or_none():
                for at, row in numbered:
                    results.append(act(at, row))
        except RowError as error:
            undone = RowError(
                "ALL_OR_NONE_OPERATION_ROLLED_BACK", "Record rolled back because not all records were valid"
            )
            results = [undone.result() for _ in rows]
            results[at] = error.result()
        return Answer(200, results)

    def _inserted(self, obj: str, record: Record) -> dict[str, Any]:
        return {"id": self._org.create(obj, record), "success": True, "errors": []}

    def _updated(self, obj: str, record: Record) -> dict[str, Any]:
        rid = str(record.pop("Id", ""))
        self._org.update(obj, rid, record)
        return {"id": rid, "success": True, "errors": []}

    def _removed(self, rid: str) -> dict[str, Any]:
        self._org.delete(rid)
        return {"id": rid, "success": True, "errors": []}

    # --- queries ---

    def _query(self, call: Call, *, deleted: bool) -> Answer:
        try:
            query = soql.parse(call.query.get("q", ""))
        except soql.QueryError as error:
            raise RequestError(400, "MALFORMED_QUERY", str(error)) from error
        org = self._org
        try:
            obj = org.object_name(query.object)
        except RequestError as error:
            raise RequestError(400, "INVALID_TYPE", f"sObject type '{query.object}' is not supported.") from error
        spelled = {name: org.field(obj, name)[0] for name in (*query.fields, *(c.field for c in query.conditions))}
        conditions = tuple(soql.Condition(spelled[c.field], c.operator, c.operand) for c in query.conditions)
        order_by = org.field(obj, query.order_by)[0] if query.order_by else None
        plan = soql.Query(query.fields, obj, conditions, order_by, query.descending, query.limit, query.offset)
        found = plan.run(list(org.records(obj, deleted=deleted)))
        if not query.fields:
            return Answer(200, {"totalSize": len(found), "done": True, "records": []})
        names = [spelled[name] for name in query.fields]
        self._queries += 1
        locator = f"01g{self._queries:012d}"
        self._pages[locator] = _Found(obj, names, found)
        return self._page(call, locator, 0)

    def _more(self, call: Call, locator: str) -> Answer:
        name, _, start = locator.rpartition("-")
        if name not in self._pages or not start.isdigit():
            raise RequestError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(call, name, int(start))

    def _page(self, call: Call, locator: str, start: int) -> Answer:
        obj, names, found = self._pages[locator]
        option = call.headers.get("Sforce-Query-Options", "").partition("batchSize=")[2]
        size = min(PAGE, max(200, int(option))) if option.isdigit() else PAGE
        end = start + size
        attributes = self._org.attributes
        rows = [{"attributes": attributes(obj, row["Id"]), **_cut(row, names)} for row in found[start:end]]
        page: dict[str, Any] = {"totalSize": len(found), "done": end >= len(found), "records": rows}
        if end < len(found):
            page["nextRecordsUrl"] = f"/services/data/v{call.version}/query/{locator}-{end}"
        else:
            del self._pages[locator]
        return Answer(200, page)


def _cut(record: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: record.get(name) for name in names}
