"""How long to wait before a delivery is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

from trunkline.core.manifests.models import RetrySpec


def backoff(spec: RetrySpec, attempt: int, *, rng: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds before the next call after `attempt` calls: full jitter between 0 and min(max_delay, min_delay x 2^(attempt - 1)).

    Full jitter spreads clients that failed together (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """
    return rng(0.0, min(spec.max_delay, spec.min_delay * 2.0 ** min(attempt - 1, 60)))
