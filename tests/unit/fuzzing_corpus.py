"""What the fuzz runs and reviews found: each was a crash, a wrong value, or work without an end."""

from __future__ import annotations

EXPRESSIONS = [
    "event.b.matches('a[ab]{900}c')",
    "event.l.all(x, event.m == event.m)",
    "event.b.lastIndexOf('ab' + event.b)",
    "'%s'.format([event.l.map(x, event.b)])",
    "event.l.map(x, [x, x, x, x, x, x, x, x, x, x, x, x])",
    "event.l.exists(x, '2024-01-01T00:00:00Z' == timestamp(0).getHours(event.a))",
    "double(event.b)",
]

TEMPLATES = [
    "{% for x in event.l %}{% for x in event.l|sort|reverse %}{{ headers }}{{ loop.index }}{% endfor %}{% endfor %}",
    "{% for x in event.l %}{% for x in event.l %}" + "{% set y = x %}" * 1000 + "{% endfor %}{% endfor %}",
    "{% for x in event.l %}{% for x in event.l %}" + "{% if x %}{% endif %}" * 1000 + "{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{% set x = event.b|upper %}{% endfor %}",
    "{% for i in range(9999) %}{% set x = event.b[1:] %}{% endfor %}",
    "{% for i in range(9999) %}{% set x = range(100000)|sum %}{% endfor %}",
    "{{ [[1]] * 1000 |sum(start=[]) }}",
    "{{ event.b|trim(event.b) }}",
    "{{ event.b.rsplit('ab' + event.b) }}",
    "{{ ('f' * 1000000)|int(0, 16) }}",
]

MANIFESTS = [
    "partitions: " + "9" * 5000,
    "---\n" * 3000,
    "a: &x [1]\nb: *x\n",
    "<<: {a: 1}\n",
    "? [a, b]\n: 1\n",
    "a: !!binary aGk=\n",
]

AVRO = [
    bytes.fromhex("06616263010e020000"),  # the branch -1 of the second field
    bytes.fromhex("06616263020e010000"),  # the symbol -1 of the third
    bytes.fromhex("06616263020e020202030000"),  # a branch -2 of an item
    bytes.fromhex("06616263020e0203020000"),  # a block with a negative count
]

DOCUMENTS = [
    (b'{"a":' * 300 + b"1" + b"}" * 300, "json"),
    (b"[" * 260 + b"]" * 260, "json"),
    (b'[{"a":1},' + b'{"a":' * 260 + b"1" + b"}" * 260 + b"]", "json"),
    (b'{"a":' * 900 + b"1" + b"}" * 900 + b"\n", "jsonl"),
]
