"""The `mask` step: hides what a field says, and keeps what is needed of it.

`hash` writes the HMAC-SHA256 (RFC 2104, FIPS 180-4) of the value as 64 lower-case hexadecimal digits: equal values stay equal, in every
topic that is masked with the same key, so joins and counts still work. It needs a key, because whoever knows the possible
values (tail numbers, e-mail addresses) finds the value of a hash without one by trying. The key is the step's `key`, or the
environment variable `TRUNKLINE_MASK_KEY`. Validation works without it; a worker that has none stops the pipeline with
`mask.no_key` before the first record goes through, and nothing is passed on unmasked.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import date, datetime, time
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from trunkline.core.avro.assignment import settled
from trunkline.core.avro.records import RecordSchema, branches_of, holder, like, logical_or_kind, walk_to
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.plain import PlainWork
from trunkline.core.settings import Secret, Settings, setting

DEFAULT_KEY = Secret("${env:TRUNKLINE_MASK_KEY}")
LEAST_KEY = 16
"""Characters. A shorter key could be found by trying, as the values could without one."""

_REMEMBERED = 4096
_Hide = Callable[[Any], str]


class HashMask(Settings):
    """The HMAC-SHA256 of the value under the step's key."""

    mode: Literal["hash"] = setting(description="`hash`.")


class RedactMask(Settings):
    """A fixed text in place of the value."""

    mode: Literal["redact"] = setting(description="`redact`.")
    text: str = setting("***", description="What stands in place of the value.", max_length=100)


class PartialMask(Settings):
    """Some characters of the value's beginning or end; the others are covered one by one."""

    mode: Literal["partial"] = setting(description="`partial`.")
    keep: int = setting(
        4,
        description="How many characters stay readable. A value of twice as many or fewer is covered wholly.",
        ge=1,
        le=100,
    )
    side: Literal["end", "start"] = setting("end", description="Which end of the value stays readable.")
    cover: str = setting("*", description="What each other character becomes.", min_length=1, max_length=1)


Mask = Annotated[HashMask | RedactMask | PartialMask, Field(discriminator="mode")]


class MaskSettings(Settings):
    """Which fields are hidden, and how. `mask: {tailnum: hash}` is short for `mask: {fields: {tailnum: {mode: hash}}}`."""

    fields: dict[str, Mask] = setting(
        description="The fields, each with `hash`, `redact`, `partial` or a mapping with `mode` and its options; `a.b` is the field "
        "b of the record a.",
        examples=[{"tailnum": "hash", "card": {"mode": "partial", "keep": 4}}],
        min_length=1,
    )
    key: Secret = setting(
        DEFAULT_KEY,
        description="The key of `hash`, at least 16 characters. Default: the environment variable TRUNKLINE_MASK_KEY.",
        examples=["${env:MASK_KEY}"],
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_modes(cls, data: Any) -> Any:
        """`tailnum: hash` is `tailnum: {mode: hash}`."""
        if not isinstance(data, dict) or not isinstance(data.get("fields"), dict):
            return data
        fields = {name: {"mode": how} if isinstance(how, str) else how for name, how in data["fields"].items()}
        return {**data, "fields": fields}


class MaskStep(Step):
    """Replaces values by text; null stays null. The field's type becomes string, nullable where it was.

    Text is hashed as UTF-8, bytes as they are, other values as text: numbers and truth values as JSON writes them, times as ISO 8601.
    """

    settings_type = MaskSettings
    summary: ClassVar[str] = "Hides fields: hashed with a key, redacted, or but for a few characters."
    shorthand: ClassVar[str | None] = "fields"

    settings: MaskSettings
    _plan: list[tuple[tuple[str, ...], str, _Hide]]
    _only: tuple[str, _Hide] | None

    def prepare(self, context: StepContext) -> Any | None:
        hashed = _Hash(self.settings.key, context.where)
        if any(isinstance(mask, HashMask) for mask in self.settings.fields.values()):
            hashed.try_key()
        self._plan = [(*walk_to(path), _hiding(mask, hashed)) for path, mask in self.settings.fields.items()]
        first = self._plan[0]
        self._only = (first[1], first[2]) if len(self._plan) == 1 and not first[0] else None
        if context.schema is None:
            return context.target
        schema = RecordSchema(context.schema, context.where)
        before = schema.json()
        for path in self.settings.fields:
            kind = schema.field(path)["type"]
            _check_scalar(schema, path, kind)
            schema.set_type(path, like(kind, "string"), context)
        if schema.json() == before:
            return context.schema
        schema.rename(context)
        return settled(schema, context)

    def process(self, event: Event) -> Event:
        if self._hide(event.value):
            event.changed = True
        return event

    def plain(self) -> PlainWork | None:
        return PlainWork(self._hide, changes=True)

    def _hide(self, value: Any, _context: Any = None) -> bool:
        """Whether anything was there to be hidden."""
        changed = False
        if self._only is not None:
            name, hide = self._only
            found = value.get(name)
            if found is not None:
                value[name] = hide(found)
                changed = True
            return changed
        for parents, name, hide in self._plan:
            record = holder(value, parents) if parents else value
            if record is not None and (found := record.get(name)) is not None:
                record[name] = hide(found)
                changed = True
        return changed


class _Hash:
    """The keyed hash. The key is resolved when the step is prepared, else at the first value, where its absence is an error."""

    def __init__(self, key: Secret, where: str) -> None:
        self._key = key
        self._where = where
        self._digest: Callable[[str], str] | None = None

    def __call__(self, value: Any) -> str:
        digest = self._digest or self._make()
        if value.__class__ is str:
            return digest(value)
        if isinstance(value, bytes):
            return hmac.digest(self._revealed(), value, "sha256").hex()
        return digest(text_of(value))

    def try_key(self) -> None:
        """Resolves the key where it is there already. `validate` runs where secrets need not be, so its absence waits."""
        try:
            self._make()
        except ConfigurationError as error:
            if error.code != "mask.no_key":
                raise

    def _make(self) -> Callable[[str], str]:
        # Taking up the key is most of the work of a hash of some bytes, so it is done once and copied.
        keyed = hmac.new(self._revealed(), digestmod="sha256")

        # Few distinct values make up most columns that are masked, and a look-up costs a tenth of a hash.
        @lru_cache(maxsize=_REMEMBERED)
        def digest(text: str) -> str:
            mac = keyed.copy()
            mac.update(text.encode("utf-8", "surrogatepass"))
            return mac.hexdigest()

        self._digest = digest
        return digest

    def _revealed(self) -> bytes:
        try:
            key = self._key.reveal()
        except ConfigurationError as error:
            raise ConfigurationError(
                f"`hash` has no key: {error.message}",
                where=self._where,
                hint="set the variable TRUNKLINE_MASK_KEY, or `key: ${env:NAME}` in the step",
                code="mask.no_key",
            ) from None
        if len(key) < LEAST_KEY:
            raise ConfigurationError(
                f"the key of `hash` has {len(key)} characters",
                where=self._where,
                hint=f"use at least {LEAST_KEY}, random ones",
                code="mask.weak_key",
            )
        return key.encode()


def text_of(value: Any) -> str:
    """A scalar as text: as JSON writes it, times as ISO 8601, bytes in hexadecimal, everything else as Python says it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (dict, list)):
        raise RejectedError("a record, list or map can't be masked: name the fields in it", code="mask.not_scalar")
    return str(value)


def _hiding(mask: HashMask | RedactMask | PartialMask, hashed: _Hash) -> _Hide:
    if isinstance(mask, HashMask):
        return hashed
    if isinstance(mask, RedactMask):
        text = mask.text
        return lambda _value: text
    keep, cover, at_end = mask.keep, mask.cover, mask.side == "end"

    def partly(value: Any) -> str:
        shown = text_of(value)
        hidden = len(shown) - keep
        if hidden < keep:
            return cover * len(shown)
        return cover * hidden + shown[hidden:] if at_end else shown[:keep] + cover * hidden

    return partly


def _check_scalar(schema: RecordSchema, path: str, kind: Any) -> None:
    for branch in branches_of(kind):
        name = logical_or_kind(branch)
        shape = schema.named[name]["type"] if name in schema.named else name
        if shape in {"record", "error", "array", "map"}:
            raise ConfigurationError(
                f"{path!r} is a {shape}, and only scalars can be masked",
                where=schema.where,
                hint=f"name the fields in it, such as {path}.name" if shape == "record" else "drop it with `map`",
                code="mask.not_scalar",
            )
