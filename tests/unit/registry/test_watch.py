"""Whether a registry is still the one that it was: asked of one over HTTP that is replaced under its client."""

from __future__ import annotations

import pytest

from trunkline.core.errors import HaltError, RetriableError
from trunkline.registry.client import RegistryClient
from trunkline.registry.rules import delete_subject, register
from trunkline.registry.schema import Schema
from trunkline.registry.store import MemoryStore
from trunkline.registry.watch import RegistryWatch

from .served import Registry, apart
from .sources import record

PAYER, PAYEE = record(("payer", "string"), name="shop.Order"), record(("payee", "string"), name="bank.Transfer")


async def _replace(registry: Registry, *subjects: tuple[str, object]) -> None:
    """Another registry answers at the same URL, with these schemas."""
    registry.store = MemoryStore()
    for subject, schema in subjects:
        await registry.store.write(register(subject, Schema(schema).text))
    registry.answers_with(registry.store)


@pytest.fixture
async def watch(client: RegistryClient) -> RegistryWatch:
    await apart(client.register, "orders-value", Schema(PAYER))
    made = RegistryWatch(client)
    assert await apart(made.look) is None
    return made


async def test_a_registry_that_is_the_same_disturbs_nobody(client: RegistryClient, watch: RegistryWatch) -> None:
    await apart(client.register, "more-value", Schema(PAYEE))
    for _ in range(3):
        assert await apart(watch.look) is None
    assert len(client.known()) == 2


async def test_an_id_that_means_another_schema_halts_with_both_named(
    registry: Registry, client: RegistryClient, watch: RegistryWatch
) -> None:
    await _replace(registry, ("transfers-value", PAYEE))
    error = await apart(watch.look)
    assert isinstance(error, HaltError)
    assert error.code == "registry.changed"
    for named in ("schema id 1", "shop.Order", "bank.Transfer", client.name):
        assert named in error.message
    assert (await apart(client.by_id, 1)).name == "bank.Transfer", "what was known is not believed any more"


async def test_an_empty_registry_that_gives_ids_from_the_beginning_halts(
    registry: Registry, client: RegistryClient, watch: RegistryWatch
) -> None:
    await apart(client.register, "transfers-value", Schema(PAYEE))
    await _replace(registry, ("transfers-value", PAYEE))
    error = await apart(watch.look)
    assert isinstance(error, HaltError)
    assert "schema id 1 was shop.Order" in error.message


async def test_a_subject_that_was_deleted_for_good_is_registered_again_and_its_pipelines_begin_anew(
    registry: Registry, client: RegistryClient, watch: RegistryWatch
) -> None:
    for permanent in (False, True):
        await registry.store.write(delete_subject("orders-value", permanent=permanent))
    error = await apart(watch.look)
    assert isinstance(error, RetriableError)
    assert error.code == "registry.renewed"
    assert "the id 2 in place of 1" in error.message
    assert (await apart(client.register, "orders-value", Schema(PAYER))).id == 2


async def test_a_subject_that_was_deleted_softly_disturbs_nobody(registry: Registry, watch: RegistryWatch) -> None:
    await registry.store.write(delete_subject("orders-value", permanent=False))
    assert await apart(watch.look) is None


async def test_a_registry_that_is_away_is_none_that_changed(registry: Registry, watch: RegistryWatch) -> None:
    registry.out_of_order = 503
    with pytest.raises(RetriableError):
        await apart(watch.look)
    registry.out_of_order = None
    assert await apart(watch.look) is None
