"""The settings of the `schedule` source."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import field_validator, model_validator

from trunkline.core.settings import Duration, Settings, setting


class ScheduleSettings(Settings):
    """When a schedule ticks, and what becomes of ticks that were missed."""

    cron: str | None = setting(
        None,
        description=(
            "A cron expression of five fields (minute, hour, day, month, weekday), or six with seconds first. Names, ranges, "
            "steps, L and # are known."
        ),
        examples=["0 6 * * MON-FRI"],
    )
    every: Duration | None = setting(
        None, description="A tick each time this long has passed, counted from 1970-01-01T00:00:00Z.", examples=["15m"]
    )
    timezone: str = setting("UTC", description="The time zone that `cron` is meant in.", examples=["Europe/Berlin"])
    name: str | None = setting(
        None, description="The name that ticks carry. Default: the pipeline's.", examples=["nightly"], min_length=1
    )
    payload: dict[str, Any] | None = setting(
        None, description="What each tick carries along, as JSON text.", examples=[{"report": "daily"}]
    )
    catch_up: Literal["none", "last", "all"] = setting(
        "last", description="Which ticks that were missed while nothing ran are emitted late."
    )
    max_catch_up: int = setting(
        1000,
        description="With `catch_up: all`, the newest this many are emitted; older ones are left out.",
        ge=1,
        le=10_000,
    )
    missed_after: Duration = setting(
        60.0, description="A tick that is later than this counts as missed.", examples=["1m"]
    )

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"no time zone is called {value!r}: write its name in the IANA database, such as Europe/Berlin"
            ) from None
        return value

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise ValueError(f"{value!r} is no cron expression: {error}") from None
        except StopIteration:
            raise ValueError(f"{value!r} names no moment in the next 50 years") from None
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> ScheduleSettings:
        if (self.cron is None) == (self.every is None):
            raise ValueError("give either `cron` or `every`")
        if self.every is not None and self.every < 1:
            raise ValueError("`every` is at least one second")
        return self
