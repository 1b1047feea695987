"""Keys that could never be used are not made."""

from __future__ import annotations

from typing import Any, cast

import pytest

from trunkline.control import keys
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError

NOWHERE = cast(Cluster, None)
"""What is refused is refused before anybody is asked."""


@pytest.mark.parametrize(
    ("options", "code", "where"),
    [
        ({"lasts": 0.0}, "key.expires", "--expires"),
        ({"lasts": 0.001}, "key.expires", "--expires"),
        ({"lasts": float("nan")}, "key.expires", "--expires"),
        ({"rate": 1e-300}, "key.rate", "--rate"),
        ({"rate": 5e-324}, "key.rate", "--rate"),
        ({"rate": 0.0}, "key.rate", "--rate"),
        ({"rate": -1.0}, "key.rate", "--rate"),
        ({"rate": float("nan")}, "key.rate", "--rate"),
        ({"rate": float("inf")}, "key.rate", "--rate"),
        ({"roles": []}, "key.role", "--role"),
        ({"team": " "}, "key.team", "--team"),
    ],
)
def test_a_key_that_could_never_be_used_is_refused(options: dict[str, Any], code: str, where: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        keys.create(NOWHERE, "ann", **{"roles": ["viewer"], **options})
    assert (refusal.value.code, refusal.value.where) == (code, where)
    assert refusal.value.hint


def test_nor_does_another_key_end_before_it_is_used() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        keys.rotate(NOWHERE, "ann", overlap=60.0, lasts=0.0)
    assert refusal.value.code == "key.expires"
