"""Records in the placeholders of kcat's `-f`, as its manual page describes them."""

from __future__ import annotations

import json
import re
from typing import Any

from trunkline.core.errors import ConfigurationError

_PLACEHOLDER = re.compile(r"%([tpokshTKS%])|\\([nrt\\])")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def formatted(record: dict[str, Any], form: str) -> str:
    """A record in kcat's placeholders. Raises `ConfigurationError` for one that is not known."""
    unknown = re.search(r"%(?![tpokshTKS%])(.?)", form.replace("%%", ""))
    if unknown is not None:
        raise ConfigurationError(
            f"%{unknown[1]} means nothing",
            where="--format",
            hint="known: %t %p %o %k %s %h %T %K %S %%",
            code="option.format",
        )
    value = record.get("value")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    key = record.get("key") or ""
    headers = ",".join(f"{name}={content}" for name, content in record.get("headers", {}).items())
    parts = {
        "t": record.get("topic"),
        "p": record.get("partition"),
        "o": record.get("offset"),
        "k": key,
        "s": text,
        "h": headers,
        "T": record.get("timestamp"),
        "K": len(key.encode()),
        "S": len(text.encode()),
        "%": "%",
    }
    return _PLACEHOLDER.sub(lambda match: str(parts[match[1]]) if match[1] else _ESCAPES[match[2]], form)
