"""A registry over HTTP, and a client of it by each of the two ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from trunkline.registry.client import RegistryClient

from .served import FAST, Registry


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry()
    made.url = await made.start()  # type: ignore[attr-defined]
    yield made
    await made.runner.cleanup()


@pytest.fixture(params=[FAST, {}], ids=["as one elsewhere", "as one on this machine"])
async def client(registry: Any, request: pytest.FixtureRequest) -> AsyncIterator[RegistryClient]:
    made = RegistryClient(registry.url, request.param)
    yield made
    made.close()
