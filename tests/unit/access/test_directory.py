"""Signing in: keys and tokens, right and wrong, and what a directory makes of records."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.clock import Clock
from trunkline.core.access.directory import DeniedError, Directory
from trunkline.core.access.keys import Key, id_of, make_key
from trunkline.core.access.principals import Caller, Principal
from trunkline.core.access.roles import Grant, Role
from trunkline.core.access.tokens import ISSUER, LASTS, Issuer

NOW = 1_800_000_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def directory(clock: Clock) -> Directory:
    return Directory(clock)


def known(
    directory: Directory, name: str = "shop", expires: float | None = None, **more: object
) -> tuple[Principal, str]:
    """A principal that the directory knows, and its key."""
    key, whole = make_key(NOW, expires)
    principal = Principal(name, (Grant(Role.VIEWER),), keys=(key,), **more)  # type: ignore[arg-type]
    directory.heard(name, orjson.dumps(principal.as_dict()))
    return principal, whole


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def sign_in(directory: Directory, headers: Mapping[str, str], address: str = "10.0.0.1") -> str | int | None:
    """The name of who signed in, the status of a refusal, or None for who did not try to."""
    try:
        found = directory.sign_in(headers, address)
    except DeniedError as denied:
        return denied.status
    return found.name if found is not None else None


def test_a_key_is_taken_in_each_way_that_clients_have(directory: Directory) -> None:
    principal, whole = known(directory)
    ways = [
        {"x-api-key": whole},
        {"authorization": f"Bearer {whole}"},
        {"authorization": f"bearer  {whole} "},
        basic("shop", whole),
        basic(principal.keys[0].id, whole),
        basic("", whole),
    ]
    assert [sign_in(directory, one) for one in ways] == ["shop"] * len(ways)
    assert directory.used() == {principal.keys[0].id: NOW}
    assert directory.used() == {}
    assert sign_in(directory, {"accept": "*/*"}) is None


def test_what_is_not_a_known_key_signs_nobody_in(directory: Directory) -> None:
    _, whole = known(directory)
    other = make_key(NOW)[1]
    forged = f"tlk_{id_of(whole)}_{other.rpartition('_')[2][:43]:A<43}"
    wrong = [
        {"x-api-key": other},
        {"x-api-key": forged},
        {"x-api-key": whole[:-1]},
        {"x-api-key": whole + "x"},
        {"x-api-key": ""},
        {"x-api-key": "x" * 10**6},
        {"x-api-key": "tlk_\udcff"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer " + "eyJ." * 10**5},
        {"authorization": f"Digest {whole}"},
        {"authorization": "Basic !"},
        {"authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"authorization": "Basic " + base64.b64encode(whole.encode()).decode()},
        {"authorization": "Basic " + "A" * 10**6},
        basic("somebody", whole),
        basic("shop", other),
        {"x-api-key": whole, "authorization": f"Bearer {whole}"},
    ]
    assert [sign_in(directory, one) for one in wrong] == [401] * len(wrong)


def test_a_key_ends_when_it_expires_and_with_its_principal(directory: Directory, clock: Clock) -> None:
    _, whole = known(directory, expires=NOW + 10)
    assert sign_in(directory, {"x-api-key": whole}) == "shop"
    clock.now += 10
    assert sign_in(directory, {"x-api-key": whole}) == 401
    _, whole = known(directory)
    directory.heard("shop", None)
    assert sign_in(directory, {"x-api-key": whole}) == 401


def test_a_rotated_key_is_taken_beside_the_new_one_until_the_overlap_is_over(
    directory: Directory, clock: Clock
) -> None:
    principal, old = known(directory)
    key, new = make_key(NOW)
    rotated = replace(principal, keys=(principal.keys[0].until(NOW + 60), key))
    directory.heard("shop", orjson.dumps(rotated.as_dict()))
    assert [sign_in(directory, {"x-api-key": one}) for one in (old, new)] == ["shop", "shop"]
    clock.now += 60
    assert [sign_in(directory, {"x-api-key": one}) for one in (old, new)] == [401, "shop"]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{}",
        b"null",
        b'{"v": 2}',
        b"\xff",
        b'{"v":1,"name":"other","team":null,"grants":[],"keys":[],"addresses":[],"rate":null}',
        b'{"v":1,"name":"shop","team":null,"grants":[{"role":"god","on":["*"]}],"keys":[],"addresses":[],"rate":null}',
    ],
)
def test_a_record_that_nobody_understands_lets_nobody_in(directory: Directory, record: bytes) -> None:
    _, whole = known(directory)
    directory.heard("shop", record)
    assert sign_in(directory, {"x-api-key": whole}) == 401


def test_a_principal_comes_only_from_where_it_may(directory: Directory) -> None:
    _, whole = known(directory, addresses=("10.1.0.0/16", "2001:db8::7"))
    addresses = ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7", "10.2.0.1", "2001:db8::8", "", "evil", "fe80::1%eth0"]
    found = [sign_in(directory, {"x-api-key": whole}, one) for one in addresses]
    assert found == ["shop", "shop", "shop", 403, 403, 403, 403, 403]


def test_a_principal_is_let_in_as_often_as_its_rate_allows(directory: Directory, clock: Clock) -> None:
    _, whole = known(directory, rate=5.0)
    assert [sign_in(directory, {"x-api-key": whole}) for _ in range(7)] == ["shop"] * 5 + [429] * 2
    clock.now += 0.4
    assert [sign_in(directory, {"x-api-key": whole}) for _ in range(3)] == ["shop"] * 2 + [429]
    with pytest.raises(DeniedError) as denied:
        directory.by_key(whole, "10.0.0.1")
    assert 0 < denied.value.wait <= 0.2
    clock.now -= 1000  # a clock that is set back gives nothing and takes nothing
    assert sign_in(directory, {"x-api-key": whole}) == 429


# --- tokens ---


@pytest.fixture
def issuer(directory: Directory) -> Issuer:
    made = Issuer("worker", NOW)
    directory.heard(ISSUER + made.id, made.record())
    return made


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_stands_for_the_key_that_it_was_given_for(directory: Directory, issuer: Issuer, clock: Clock) -> None:
    _, whole = known(directory)
    token = issuer.issue(directory.by_key(whole, "10.0.0.1"), NOW)
    assert sign_in(directory, bearer(token)) == "shop"
    clock.now += LASTS
    assert sign_in(directory, bearer(token)) == 401


def test_a_token_ends_with_its_key_its_principal_and_its_issuer(directory: Directory, issuer: Issuer) -> None:
    principal, whole = known(directory)
    token = issuer.issue(directory.by_key(whole, ""), NOW)
    directory.heard("shop", orjson.dumps(replace(principal, keys=(make_key(NOW)[0],)).as_dict()))
    assert sign_in(directory, bearer(token)) == 401
    directory.heard("shop", orjson.dumps(principal.as_dict()))
    assert sign_in(directory, bearer(token)) == "shop"
    directory.heard(ISSUER + issuer.id, None)
    assert sign_in(directory, bearer(token)) == 401


def test_no_token_can_be_forged(directory: Directory, issuer: Issuer) -> None:
    principal, whole = known(directory)
    good = issuer.issue(directory.by_key(whole, ""), NOW)
    head, claims, signature = good.split(".")
    named = {"sub": "shop", "key": principal.keys[0].id, "aud": "trunkline", "exp": NOW + 10**6, "iat": NOW}
    own, kid = Ed25519PrivateKey.generate(), {"kid": issuer.id}
    public = orjson.loads(issuer.record())["jwk"]["x"]
    forged = [
        f"{head}.{claims}.",
        f"{head}.{claims}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}",
        jwt.encode(named, own, algorithm="EdDSA", headers=kid),
        jwt.encode(named, own, algorithm="EdDSA"),
        jwt.encode(named, public + "=" * 40, algorithm="HS256", headers=kid),
        jwt.encode(named, None, algorithm="none", headers=kid),
    ]
    assert [sign_in(directory, bearer(one)) for one in forged] == [401] * len(forged)
    stranger = issuer.issue(Caller(Principal("other"), principal.keys[0].id), NOW)
    assert sign_in(directory, bearer(stranger)) == 401


@pytest.mark.parametrize(
    "record", [b"", b"{}", b'{"v":1,"jwk":{"kty":"oct","k":"AAAA"},"until":9e9}', b'{"v":1,"jwk":{},"until":9e9}']
)
def test_an_issuer_that_can_not_be_read_is_believed_nothing(
    directory: Directory, issuer: Issuer, record: bytes
) -> None:
    _, whole = known(directory)
    token = issuer.issue(directory.by_key(whole, ""), NOW)
    directory.heard(ISSUER + issuer.id, record)
    assert sign_in(directory, bearer(token)) == 401


def test_a_worker_signs_in_to_itself_and_no_record_can_be_taken_for_it(directory: Directory) -> None:
    own = directory.own_key()
    for name in ("worker", "local"):
        key, whole = make_key(NOW)
        directory.heard(name, orjson.dumps(Principal(name, (Grant(Role.ADMIN),), keys=(key,)).as_dict()))
        assert sign_in(directory, {"x-api-key": whole}) == 401
        directory.heard(name, None)
    assert sign_in(directory, basic("worker", own)) == "worker"
    assert Directory().own_key() != own


def test_a_command_with_the_workers_own_key_is_the_persons_who_gave_it(directory: Directory, issuer: Issuer) -> None:
    own = directory.own_key()
    caller = directory.by_key(own, "127.0.0.1", "ann")
    assert (caller.name, caller.principal.name) == ("ann", "worker")
    assert directory.by_key(own, "127.0.0.1", "worker").name == "worker"
    assert sign_in(directory, bearer(issuer.issue(caller, NOW))) == "worker"


def test_of_a_key_only_its_hash_is_kept() -> None:
    key, whole = make_key(NOW)
    assert whole.rpartition("_")[2] not in str(key.as_dict())
    assert whole not in repr(key)
    assert Key(**key.as_dict()).is_made_of(whole)
