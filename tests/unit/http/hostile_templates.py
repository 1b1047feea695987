"""Hostile templates: texts that try to leave the sandbox, and texts that would grow without bound."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

VALUE: dict[str, Any] = {
    "name": 'O"Hara',
    "number": 7,
    "price": Decimal("1.50"),
    "at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    "day": date(2024, 1, 2),
    "none": None,
    "yes": True,
    "raw": b"\x00\xff",
    "uid": UUID(int=1),
    "items": [1, "x", None],
    "map": {"b": 1, "get": 2},
}

ESCAPES = [
    "{{ ''.__class__ }}", "{{ ''['__class__'] }}", "{{ event.__class__.__mro__ }}", "{{ event | attr('__class__') }}",
    "{{ [].__class__.__base__.__subclasses__() }}", "{{ self.__init__.__globals__ }}", "{{ event.items.append(1) }}",
    "{{ event.map.update({}) }}", "{{ event.map.pop('b') }}", "{{ '{0.__class__}'.format(1) }}", "{{ '%s' % 1 }}",
    "{{ '{x}'.format_map({}) }}", "{{ event.at.__reduce__() }}", "{{ event.name.encode }}", "{{ range.__self__ }}",
    "{{ event.number.to_bytes(9, 'big') }}", "{{ lipsum() }}", "{{ cycler }}", "{{ joiner() }}", "{{ namespace() }}",
    "{{ config }}", "{{ self }}", "{{ loop }}", "{{ event.clear() }}", "{{ headers.__class__ }}", "{{ event.uid.bytes }}",
    "{{ dict(a=1) }}", "{{ event.price.__class__ }}", "{{ ''.join([]) }}", "{% for i in [1] %}{{ loop._iterator }}{% endfor %}",
]  # fmt: skip

BOMBS = [
    "{{ 'a' * 10**9 }}", "{{ 10**9 * 'a' }}", "{{ [1] * 10**9 }}", "{{ 9**9**9 }}", "{{ 10**64 * 10**64 ** 64 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
    "{{ range(10**9) | list }}", "{{ 'x'.center(10**9) }}", "{{ 'x'.ljust(10**9) }}", "{{ 'x'.zfill(10**9) }}",
    "{{ 'x' | center(10**9) }}", "{{ 'x' | indent(10**9) }}", "{{ '%999999999d' % 1 }}", "{{ '{:>999999999}'.format(1) }}",
    "{{ event.at.strftime('%0999999999d') }}", "{{ ('a' * 9999).replace('a', 'a' * 9999) }}", "{{ 1.5 | round(10**9) }}",
    "{{ ('a' * 9999) | replace('a', 'a' * 9999) }}", "{{ (['a'] * 99999) | join('a' * 99999) }}",
    "{{ 'a'.expandtabs(10**9) }}",
    "{% set x = 'aaaaaaaaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
    "{% set x = 'aaaaaaaaaaaaaaaa' %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x == x }}",
    "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 60 + "{{ x | string }}",
    "{% set x = 9 %}" + "{% set x = x * x %}" * 60 + "{{ x }}",
]  # fmt: skip
