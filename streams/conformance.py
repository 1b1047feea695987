"""The conformance of the steps: what each does, by examples."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from streams.cast import CastStep
from streams.filter import FilterStep
from streams.flatten import FlattenStep
from streams.map import MapStep
from streams.mask import MaskStep
from streams.python import PythonStep
from streams.split import SplitStep
from streams.validate import ValidateStep
from trunkline.core.testing import NotApplicableError, StepCase, StepKit, step_suite

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "quantity", "type": "int"},
        {"name": "price", "type": ["null", "string"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {
            "name": "items",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Item",
                    "fields": [{"name": "sku", "type": "string"}, {"name": "count", "type": "long"}],
                },
            },
        },
        {
            "name": "buyer",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Person",
                    "fields": [
                        {"name": "name", "type": "string"},
                        {"name": "age", "type": ["null", "int"], "default": None},
                    ],
                },
            ],
            "default": None,
        },
    ],
}


def order(**changes: Any) -> dict[str, Any]:
    """An order, with some fields changed."""
    return {
        "id": "o-1",
        "quantity": 3,
        "price": "9.90",
        "tags": ["new", "gift"],
        "items": [{"sku": "a", "count": 1}, {"sku": "b", "count": 2}],
        "buyer": {"name": "Ada", "age": 36},
        **changes,
    }


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    """The value without some of its fields."""
    return {name: found for name, found in value.items() if name not in names}


class FilterKit(StepKit):
    """Filters orders."""

    @property
    def cases(self) -> Sequence[StepCase]:
        return [
            StepCase("event.quantity > 2", ORDER, order(), order()),
            StepCase("event.quantity > 3", ORDER, order(), None),
            StepCase({"when": "event.buyer != null && event.buyer.name == 'Ada'"}, ORDER, order(buyer=None), None),
            StepCase("1 / (event.quantity - 3) > 0", ORDER, order(), rejects="column"),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        return "event.quantiy > 2", ORDER, "quantity"


class MapKit(StepKit):
    """Maps orders."""

    @property
    def cases(self) -> Sequence[StepCase]:
        thin = {
            "type": "record",
            "name": "Thin",
            "fields": [{"name": "id", "type": "string"}, {"name": "total", "type": "double"}],
        }
        rest = without(order(), "id", "quantity", "price")
        return [
            StepCase(
                {"keep": "all", "set": {"double": "event.quantity * 2"}, "drop": ["tags", "items"]},
                ORDER,
                order(),
                without(order(double=6), "tags", "items"),
            ),
            StepCase({"keep": ["id"], "rename": {"quantity": "count"}}, ORDER, order(), {"id": "o-1", "count": 3}),
            StepCase(
                {"rename": {"quantity": "id", "id": "quantity"}, "drop": ["price"]},
                ORDER,
                order(),
                {"quantity": "o-1", "id": 3, **rest},
            ),
            StepCase(
                {"keep": "none", "set": {"id": "event.id + '!'", "old": "event.id", "buyer": "event.buyer"}},
                ORDER,
                order(),
                {"id": "o-1!", "old": "o-1", "buyer": {"name": "Ada", "age": 36}},
            ),
            StepCase(
                {"drop": ["buyer.age"], "set": {"buyer.initial": "event.buyer.name.substring(0, 1)"}},
                ORDER,
                order(),
                order(buyer={"name": "Ada", "initial": "A"}),
            ),
            StepCase(
                {"keep": ["id"], "set": {"total": "double(event.price) * double(event.quantity)"}},
                ORDER,
                order(price="2.5"),
                {"id": "o-1", "total": 7.5},
                target=thin,
            ),
            StepCase({"set": {"buyer.vip": "true"}}, ORDER, order(buyer=None), rejects="buyer.vip"),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        return {"drop": ["quantiy"]}, ORDER, "quantity"


class CastKit(StepKit):
    """Casts the fields of orders and times."""

    @property
    def cases(self) -> Sequence[StepCase]:
        moment = {
            "type": "record",
            "name": "Moment",
            "fields": [{"name": "at", "type": ["null", "string"]}, {"name": "ms", "type": "long"}],
        }
        return [
            StepCase(
                {"quantity": "string", "price": "decimal(6, 2)"},
                ORDER,
                order(),
                order(quantity="3", price=Decimal("9.90")),
            ),
            StepCase({"price": "double", "buyer.age": "long"}, ORDER, order(price=None), order(price=None)),
            StepCase(
                {"fields": {"at": "timestamp", "ms": "timestamp(ms)"}},
                moment,
                {"at": "2013-01-01T10:00:00Z", "ms": 1_000},
                {"at": datetime(2013, 1, 1, 10, tzinfo=UTC), "ms": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)},
            ),
            StepCase({"at": "date"}, moment, {"at": "2013-02-03", "ms": 1}, {"at": date(2013, 2, 3), "ms": 1}),
            StepCase({"price": "int"}, ORDER, order(price="9.90"), rejects="price"),
            StepCase({"quantity": "boolean"}, ORDER, order(quantity=3), rejects="quantity"),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        return {"quantiy": "string"}, ORDER, "quantity"


class MaskKit(StepKit):
    """Masks the fields of orders."""

    KEY = "conformance-mask-key-0123456789"

    @property
    def environment(self) -> Mapping[str, str]:
        return {"TRUNKLINE_MASK_KEY": self.KEY, "OTHER_MASK_KEY": self.KEY[::-1]}

    @property
    def cases(self) -> Sequence[StepCase]:
        return [
            StepCase({"id": "hash"}, ORDER, order(), order(id=self._hash(self.KEY, "o-1"))),
            StepCase(
                {"fields": {"id": "hash", "quantity": {"mode": "hash"}}, "key": "${env:OTHER_MASK_KEY}"},
                ORDER,
                order(),
                order(id=self._hash(self.KEY[::-1], "o-1"), quantity=self._hash(self.KEY[::-1], "3")),
            ),
            StepCase(
                {"price": "redact", "buyer.name": {"mode": "redact", "text": "-"}}, ORDER, order(), self._redacted()
            ),
            StepCase(
                {"id": {"mode": "partial", "keep": 2}},
                ORDER,
                order(id="4242-1234"),
                order(id="*******34"),
            ),
            StepCase({"id": "partial", "price": "hash"}, ORDER, order(price=None), order(id="***", price=None)),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        return {"buyer.nam": "redact"}, ORDER, "name"

    @staticmethod
    def _hash(key: str, text: str) -> str:
        return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()

    @staticmethod
    def _redacted() -> dict[str, Any]:
        return order(price="***", buyer={"name": "-", "age": 36})


class FlattenKit(StepKit):
    """Flattens orders."""

    @property
    def cases(self) -> Sequence[StepCase]:
        flat = without(order(), "buyer")
        return [
            StepCase(None, ORDER, order(), {**flat, "buyer_name": "Ada", "buyer_age": 36}),
            StepCase({"separator": "__"}, ORDER, order(), {**flat, "buyer__name": "Ada", "buyer__age": 36}),
            StepCase({}, ORDER, order(buyer=None), {**flat, "buyer_name": None, "buyer_age": None}),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        raise NotApplicableError("`flatten` names no fields")


class SplitKit(StepKit):
    """Splits orders into items."""

    @property
    def cases(self) -> Sequence[StepCase]:
        kept = {"id": "o-1", "buyer": {"name": "Ada", "age": 36}}
        return [
            StepCase("items", ORDER, order(), [{"sku": "a", "count": 1}, {"sku": "b", "count": 2}]),
            StepCase(
                {"field": "items", "keep": ["id", "buyer"]},
                ORDER,
                order(),
                [{**kept, "sku": "a", "count": 1}, {**kept, "sku": "b", "count": 2}],
            ),
            StepCase(
                {"field": "tags", "keep": ["id"], "into": "tag"},
                ORDER,
                order(),
                [{"id": "o-1", "tag": "new"}, {"id": "o-1", "tag": "gift"}],
            ),
            StepCase("items", ORDER, order(items=[]), None),
            StepCase("items", None, order(items=7), rejects="items"),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        return {"field": "itms"}, ORDER, "items"


class ValidateKit(StepKit):
    """Validates orders."""

    @property
    def cases(self) -> Sequence[StepCase]:
        fields = [
            {**field, "type": "string", "default": "0"} if field["name"] == "price" else field
            for field in ORDER["fields"]
        ]
        rules = [
            {"when": "event.quantity <= 0", "message": "the quantity must be positive"},
            {"when": "size(event.items) == 0", "message": "an order needs items"},
        ]
        strict = {**ORDER, "fields": fields}
        return [
            StepCase({"rules": rules}, ORDER, order(), order()),
            StepCase({"schema": strict, "rules": rules}, ORDER, order(), order()),
            StepCase({"schema": strict}, ORDER, order(price=None), rejects="price"),
            StepCase({"rules": rules}, ORDER, order(items=[]), rejects="an order needs items"),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        return {"rules": [{"when": "event.quantiy <= 0", "message": "no"}]}, ORDER, "quantity"


class PythonKit(StepKit):
    """Calls functions of a module beside the manifest."""

    MODULE = """
def discounted(value):
    value["quantity"] -= 1
    return value

def tagged(value, event):
    return {"id": event.envelope.id}

def each_tag(value):
    return [{"id": tag} for tag in value["tags"]]

def nothing(value):
    return None

def wrong(value):
    return 7
"""
    ID: ClassVar[dict[str, Any]] = {"type": "record", "name": "Id", "fields": [{"name": "id", "type": "string"}]}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "pricing.py").write_text(self.MODULE, encoding="utf-8")

    @property
    def cases(self) -> Sequence[StepCase]:
        return [
            StepCase({"call": "pricing:discounted", "schema": ORDER}, ORDER, order(), order(quantity=2)),
            StepCase("pricing:discounted", ORDER, order(), order(quantity=2)),
            StepCase({"call": "pricing:tagged", "schema": self.ID}, ORDER, order(), {"id": "conformance-0"}),
            StepCase({"call": "pricing:each_tag", "schema": self.ID}, ORDER, order(), [{"id": "new"}, {"id": "gift"}]),
            StepCase("pricing:nothing", ORDER, order(), None),
            StepCase("pricing:wrong", ORDER, order(), rejects="pricing:wrong"),
        ]

    @property
    def misspelt(self) -> tuple[Any, Any, str]:
        return "pricing:discountd", ORDER, "discounted"


TestFilter = step_suite(FilterStep, factory=FilterKit)
TestMap = step_suite(MapStep, factory=MapKit)
TestCast = step_suite(CastStep, factory=CastKit)
TestMask = step_suite(MaskStep, factory=MaskKit)
TestFlatten = step_suite(FlattenStep, factory=FlattenKit)
TestSplit = step_suite(SplitStep, factory=SplitKit)
TestValidate = step_suite(ValidateStep, factory=ValidateKit)
TestPython = step_suite(PythonStep, factory=PythonKit)
