"""A spreadsheet of the Google Sheets stand-in, and the methods of the Sheets API on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sinks.google_sheets.a1 import Span, parse_span, quoted, split_title
from sinks.google_sheets.mock_grid import BadRequestError, Worksheet

_INPUT_OPTIONS = ("RAW", "USER_ENTERED")


class Spreadsheet:
    """One spreadsheet. `call` answers a request that was authorised; `max_rows` makes it full early (0: never)."""

    def __init__(self, name: str, worksheets: list[str]) -> None:
        self.name = name
        self.max_rows = 0
        self._sheets = [Worksheet(number, title) for number, title in enumerate(worksheets)]

    def worksheet(self, title: str) -> Worksheet:
        """The worksheet of that title. Raises `BadRequestError` as the API does for a range in one that is not there."""
        found = next((sheet for sheet in self._sheets if sheet.title == title), None)
        if found is None:
            raise BadRequestError(f"Unable to parse range: {quoted(title)}")
        return found

    def contents(self) -> dict[str, list[list[Any]]]:
        """The rows of all worksheets by title."""
        return {sheet.title: sheet.values() for sheet in self._sheets}

    def formulas(self) -> list[str]:
        """All formulas that are live."""
        return [formula for sheet in self._sheets for formula in sheet.formulas]

    def dump(self) -> list[dict[str, Any]]:
        """The spreadsheet as JSON, to be kept on disk."""
        return [sheet.dump() for sheet in self._sheets]

    @classmethod
    def load(cls, name: str, kept: list[dict[str, Any]]) -> Spreadsheet:
        """The spreadsheet that `dump` kept."""
        book = cls(name, [])
        book._sheets = [Worksheet.load(sheet) for sheet in kept]
        return book

    def call(
        self, method: str, rest: str, query: Mapping[str, str], ranges: list[str], body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The answer to `method` on what follows the spreadsheet's id in the path; None for what the API does not have.

        `ranges` are all values of the parameter of that name, which a mapping can't hold.
        """
        match method, rest:
            case "GET", "":
                return self._get()
            case "POST", ":batchUpdate":
                return self._structure(body)
            case "GET", "/values:batchGet":
                return {"spreadsheetId": self.name, "valueRanges": [self._read(each, query) for each in ranges]}
            case "POST", "/values:batchUpdate":
                return self._batch_update(body)
            case "POST", "/values:batchClear":
                return {"spreadsheetId": self.name, "clearedRanges": [self._clear(each) for each in body["ranges"]]}
        if not rest.startswith("/values/"):
            return None
        where = rest.removeprefix("/values/")
        if method == "POST" and where.endswith(":append"):
            return self._append(where.removesuffix(":append"), query, body)
        if method == "POST" and where.endswith(":clear"):
            return {"spreadsheetId": self.name, "clearedRange": self._clear(where.removesuffix(":clear"))}
        if method == "GET":
            return self._read(where, query)
        if method == "PUT":
            return self._update(where, body, _input_option(query))
        return None

    # --- structure ----------------------------------------------------------------------------------------------------

    def _get(self) -> dict[str, Any]:
        sheets = [{"properties": _properties(sheet, index)} for index, sheet in enumerate(self._sheets)]
        properties = {"title": "Mock", "locale": "en_US", "timeZone": "Etc/UTC"}
        return {"spreadsheetId": self.name, "properties": properties, "sheets": sheets}

    def _structure(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"spreadsheetId": self.name, "replies": [self._reply(each) for each in body.get("requests", [])]}

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        kind = next(iter(request), "")
        details: dict[str, Any] = request.get(kind, {})
        if kind == "addSheet":
            wanted = details.get("properties", {})
            title = wanted.get("title", f"Sheet{len(self._sheets) + 1}")
            if any(sheet.title == title for sheet in self._sheets):
                raise BadRequestError(
                    f'Invalid requests[0].addSheet: A sheet with the name "{title}" already exists. Please enter another name.'
                )
            grid = wanted.get("gridProperties", {})
            number = max((sheet.number for sheet in self._sheets), default=-1) + 1
            self._sheets.append(Worksheet(number, title, grid.get("rowCount", 1000), grid.get("columnCount", 26)))
            return {"addSheet": {"properties": _properties(self._sheets[-1], len(self._sheets) - 1)}}
        if kind == "deleteSheet":
            self._sheets.remove(self._by_number(details["sheetId"]))
            return {}
        if kind == "deleteDimension":
            place = details["range"]
            self._by_number(place["sheetId"]).delete_rows(place["startIndex"], place["endIndex"])
            return {}
        if kind == "updateSheetProperties":
            wanted = details["properties"]
            sheet = self._by_number(wanted["sheetId"])
            sheet.title = wanted.get("title", sheet.title)
            grid = wanted.get("gridProperties", {})
            sheet.row_count = grid.get("rowCount", sheet.row_count)
            sheet.column_count = grid.get("columnCount", sheet.column_count)
            return {}
        raise BadRequestError(f"Invalid requests[0]: {kind or 'nothing'} is not known to the stand-in")

    def _by_number(self, number: int) -> Worksheet:
        found = next((sheet for sheet in self._sheets if sheet.number == number), None)
        if found is None:
            raise BadRequestError(f"Invalid requests[0]: No sheet with id: {number}")
        return found

    # --- values -------------------------------------------------------------------------------------------------------

    def _place(self, text: str) -> tuple[Worksheet, Span]:
        titles = [sheet.title for sheet in self._sheets]
        try:
            # A title without quotes is a whole worksheet, even one that looks like a cell.
            title, cells = (text, "") if text in titles else split_title(text)
            return self.worksheet(self._sheets[0].title if title is None else title), parse_span(cells)
        except ValueError as error:
            raise BadRequestError(str(error)) from error

    def _read(self, where: str, query: Mapping[str, str]) -> dict[str, Any]:
        sheet, span = self._place(where)
        values = sheet.read(span, query.get("valueRenderOption", "FORMATTED_VALUE"))
        major = query.get("majorDimension", "ROWS")
        if major == "COLUMNS":
            width = max((len(row) for row in values), default=0)
            values = [[row[index] if index < len(row) else "" for row in values] for index in range(width)]
        answer: dict[str, Any] = {"range": sheet.range_of(span), "majorDimension": major}
        return answer | ({"values": values} if values else {})

    def _update(self, where: str, body: dict[str, Any], option: str) -> dict[str, Any]:
        sheet, span = self._place(where)
        values = _values(body)
        return _written(self.name, sheet.write(span, values, option), values)

    def _batch_update(self, body: dict[str, Any]) -> dict[str, Any]:
        option = _input_option(body)
        responses = [self._update(each["range"], each, option) for each in body.get("data", [])]
        return {
            "spreadsheetId": self.name,
            "totalUpdatedRows": sum(each["updatedRows"] for each in responses),
            "totalUpdatedCells": sum(each["updatedCells"] for each in responses),
            "responses": responses,
        }

    def _append(self, where: str, query: Mapping[str, str], body: dict[str, Any]) -> dict[str, Any]:
        sheet, span = self._place(where)
        values = _values(body)
        if self.max_rows and len(sheet.values()) + len(values) > self.max_rows:
            raise BadRequestError(
                "This action would increase the number of cells in the workbook above the limit of 10000000 cells."
            )
        insert = query.get("insertDataOption") == "INSERT_ROWS"
        table, written = sheet.append(span, values, _input_option(query), insert=insert)
        answer: dict[str, Any] = {"spreadsheetId": self.name, "updates": _written(self.name, written, values)}
        return answer | ({"tableRange": table} if table else {})

    def _clear(self, where: str) -> str:
        sheet, span = self._place(where)
        return sheet.clear(span)


def _properties(sheet: Worksheet, index: int) -> dict[str, Any]:
    grid = {"rowCount": sheet.row_count, "columnCount": sheet.column_count}
    return {
        "sheetId": sheet.number,
        "title": sheet.title,
        "index": index,
        "sheetType": "GRID",
        "gridProperties": grid,
    }


def _values(body: dict[str, Any]) -> list[list[Any]]:
    values = body.get("values", [])
    if not isinstance(values, list) or not all(isinstance(row, list) for row in values):
        raise BadRequestError("Invalid value at 'data.values' (type.googleapis.com/google.protobuf.ListValue)")
    if body.get("majorDimension", "ROWS") == "COLUMNS":
        height = max((len(column) for column in values), default=0)
        return [[column[row] if row < len(column) else None for column in values] for row in range(height)]
    return values


def _input_option(given: Mapping[str, Any]) -> str:
    option = given.get("valueInputOption")
    if option not in _INPUT_OPTIONS:
        raise BadRequestError("'valueInputOption' is required but not specified")
    return str(option)


def _written(name: str, where: str, values: list[list[Any]]) -> dict[str, Any]:
    return {
        "spreadsheetId": name,
        "updatedRange": where,
        "updatedRows": len(values),
        "updatedColumns": max((len(row) for row in values), default=0),
        "updatedCells": sum(value is not None for row in values for value in row),
    }
