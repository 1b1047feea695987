"""Canary secrets, and the ways in which programs write a value into text."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import secrets
import shlex
import string
import traceback
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote, quote_plus, urlencode

_LETTERS = string.ascii_letters + string.digits
_ODD = (
    "&3",
    'q"u',
    "o'te",
    "\\back",
    "\\nslash",
    "%41",
    "a b",
    "c+d",
    "e/f=",
    "pä",
    "日本",
    "😀",
    "<x>&amp;",
    "{{",
    "\t",
)


def canaries() -> Sequence[str]:
    """Sixty secrets, new ones at each call: passwords long and short, with odd signs, tokens, keys, addresses."""

    def word(length: int) -> str:
        return "".join(secrets.choice(_LETTERS) for _ in range(length))

    plain = [word(length) for length in (12, 16, 20, 24, 32, 40, 64, 100, 200, 1500)]
    odd = [word(6) + odd + word(6) for odd in _ODD]
    short = ["z" + word(length - 2) + "7" for length in (3, 3, 4, 4, 5, 5)] + ["x7!", "p@9s", "q:8", "ä9ö", "j w8"]
    tokens = [kind + word(32) for kind in ("xoxb-", "whsec_", "ghp_", "sk_live_", "tl_")]
    tokens += [f"{word(36)}.{word(80)}.{word(43)}" for _ in range(4)]
    keys = [f"-----BEGIN KEY-----\n{_lines(word(64 * count))}\n-----END KEY-----\n" for count in (2, 12, 26)]
    keys.append(json.dumps({"type": "service_account", "private_key": keys[0], "id": word(20)}, indent=2))
    addresses = [
        f"https://hooks.slack.com/services/T{word(8)}1/B{word(8)}2/{word(22)}q1",
        f"https://example.webhook.office.com/webhookb2/{word(30)}1a@{word(30)}2b/IncomingWebhook/{word(30)}3c/{word(30)}4d",
        f"https://logic.example.com:443/workflows/{word(30)}5e/triggers/manual?api-version=2016-06-01&sig={word(41)}6f",
        f"postgresql://bus:{word(14)}7@db.example.com/orders",
    ]
    found = [*plain, *odd, *short, *tokens, *keys, *addresses]
    return [*found, *(word(18) + "!" + word(3) for _ in range(60 - len(found)))]


def _lines(text: str) -> str:
    return "\n".join(text[at : at + 64] for at in range(0, len(text), 64))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _exception(secret: str) -> str:
    try:
        raise ValueError(secret, {"config": secret})
    except ValueError:
        return traceback.format_exc()


def _csv(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow(fields)
    return line.getvalue()


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


ENCODINGS: Mapping[str, Callable[[str], str]] = {
    "raw": lambda secret: secret,
    "base64": lambda secret: f"{_base64(secret)} {_base64(quote_plus(secret))}",
    "base64 for addresses": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
    "base64 of JSON": lambda secret: _base64(json.dumps({"user": "bus", "password": secret, "more": 1})),
    "base64 in lines": lambda secret: base64.encodebytes(f"user:{secret}".encode()).decode(),
    "Basic": lambda secret: " ".join(f"Basic {_base64(user + ':' + secret)}" for user in ("b", "bu", "bus")),
    "Basic of OAuth2": lambda secret: f"Basic {_base64('client+1:' + quote_plus(secret))}",
    "form": lambda secret: urlencode({"grant_type": "password", "password": secret, "scope": "a"}),
    "JSON": lambda secret: json.dumps({"password": secret, "more": 1}),
    "JSON in UTF-8": lambda secret: json.dumps({"password": secret}, ensure_ascii=False),
    "JSON in JSON": lambda secret: json.dumps({"body": json.dumps({"password": secret})}),
    "URL": lambda secret: f"https://example.com/{quote(secret, safe='')}?key={quote(secret)}&page=2",
    "URL in a URL": lambda secret: quote(f"https://example.com/?{urlencode({'key': secret})}&page=2", safe=""),
    "header dump": lambda secret: repr(
        {"Authorization": f"Bearer {secret}", "X-Key": f"Basic {_base64('me:' + secret)}"}
    ),
    "raw header dump": lambda secret: repr([(b"Authorization", b"Bearer " + secret.encode()), (b"Host", b"a")]),
    "exception": _exception,
    "ASCII": ascii,
    "CSV": lambda secret: _csv(["bus", secret, "more"]),
    "CSV of JSON": lambda secret: _csv(["bus", json.dumps({"password": secret})]),
    "SQL": lambda secret: f"INSERT INTO users VALUES ({_sql(secret)}, 1)",
    "SQL in CSV": lambda secret: _csv([f"SELECT {_sql(secret)}", "failed"]),
    "shell": lambda secret: f"curl -u {shlex.quote('bus:' + secret)} https://example.com",
    "HTML": lambda secret: f"<p>{html.escape(secret)}</p>",
}
"""How a secret is written into text, by name."""


def remains(secret: str, text: str) -> list[str]:
    """What of a secret is left in a text, in any of its encodings: the whole, or a part of a long one."""
    parts = [secret.strip()]
    if len(secret) > 80:
        parts += [
            line for line in secret.splitlines() if len(line) >= 32 and "BEGIN" not in line and "type" not in line
        ]
        parts += [secret[at : at + 60] for at in range(0, len(secret) - 60, 60)]
    forms = {form for part in parts for form in (part, quote(part, safe=""), quote_plus(part), json.dumps(part)[1:-1])}
    forms |= {_base64(part)[:-4] for part in parts if len(part) > 9}
    return [form for form in forms if form in text and len(form) > 1]
