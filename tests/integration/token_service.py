"""A token service (RFC 6749, client credentials) with the keys of its tokens (RFC 7517), which a broker and clients use over loopback."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET, AUDIENCE = "trunkline", "client secret", "kafka"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class TokenService:
    """Gives tokens to who knows the secret. What a token says follows from the path under which it is asked for: see `endpoint`."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._strange = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.given = 0
        """How many tokens it gave."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, service.keys())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                asked = {name: values[0] for name, values in urllib.parse.parse_qs(body).items()}
                right = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
                if self.headers["Authorization"] != f"Basic {right}" or asked["grant_type"] != "client_credentials":
                    self._answer(401, {"error": "invalid_client", "error_description": "the secret is not this one"})
                    return
                service.given += 1
                self._answer(200, service.grant(self.path.removeprefix("/token/")))

            def _answer(self, status: int, data: Any) -> None:
                told = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def endpoint(self, kind: str = "right") -> str:
        """Where tokens of a kind are given: `right`, `short` (of a few seconds), and wrong ones.

        Wrong ones are of another `audience`, `issuer` or `key`, or `expired`; `empty` gives none.
        """
        return f"{self.url}/token/{kind}"

    def keys(self) -> dict[str, Any]:
        """The key set."""
        public = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "n": _number(public.n), "e": _number(public.e)}
        return {"keys": [key]}

    def grant(self, kind: str) -> dict[str, Any]:
        """The answer to a request for a token."""
        if kind == "empty":
            return {"token_type": "bearer"}
        now, life = int(time.time()), 6 if kind == "short" else 3600
        # librdkafka asks for a life that goes on; what an expired one says of its begin is what the broker looks at.
        claims = {
            "iss": "somebody" if kind == "issuer" else self.url,
            "aud": "another" if kind == "audience" else AUDIENCE,
            "sub": CLIENT,
            "iat": now - 7200 if kind == "expired" else now,
            "exp": now - 3600 if kind == "expired" else now + life,
        }
        head = _encoded(json.dumps({"alg": "RS256", "kid": "1", "typ": "JWT"}).encode())
        signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
        key = self._strange if kind == "key" else self._key
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return {"access_token": f"{signed}.{_encoded(signature)}", "token_type": "bearer", "expires_in": life}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
