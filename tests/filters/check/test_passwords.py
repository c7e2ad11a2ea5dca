"""Passwords with bcrypt hashes as a policy server verifies them."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator

import bcrypt
import pytest
from envoy.config.core.v3 import base_pb2

from filters.check.passwords import WAITING, Missing, Passwords, credentials_of
from filters.identity import password_lookup
from filters.identity.authentication import Authentication
from filters.identity.basic_auth import BasicAuth, BasicAuthSettings
from filters.identity.password_lookup import USERS
from filters.identity.script import FILTER
from filters.language.datasource import SecretSource
from filters.model.identity import Consumer, ConsumerPassword
from filters.policy import NOTHING, Context
from filters.unary import Busy

FILE = SecretSource(file="users")


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


ANN, BOB = hashed("ann's"), hashed("bob's")


def headers(name: str, password: str) -> list[base_pb2.HeaderValue]:
    value = b"Basic " + base64.b64encode(f"{name}:{password}".encode())
    return [base_pb2.HeaderValue(key="authorization", raw_value=value)]


def body(*users: tuple[str, str]) -> bytes:
    return USERS.build("file", users).SerializeToString()


class Calls:
    """bcrypt itself, counted, and held back until `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.seen: list[bytes] = []

    def verify(self, password: bytes, entry: bytes) -> bool:
        self.go.wait(30)
        self.seen.append(password)
        return bcrypt.checkpw(password, entry)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def with_users(passwords: Passwords) -> Passwords:
    assert passwords.table.replace({"file": body(("ann", ANN), ("bob", BOB), ("quick", ""))}, ()) == {}
    return passwords


@pytest.fixture
def held(calls: Calls) -> Iterator[Passwords]:
    one = with_users(Passwords(verify=calls.verify))
    yield one
    one.close()


async def test_a_user_is_known_by_name_and_password(held: Passwords) -> None:
    assert await held.user("file", headers("ann", "ann's")) == "ann"
    for name, password in (("ann", "bob's"), ("ann", ""), ("eve", "ann's"), ("", ""), ("quick", "")):
        assert await held.user("file", headers(name, password)) is None
    assert await held.user("file", []) is None


async def test_a_right_password_is_verified_once_and_a_wrong_one_each_time(
    held: Passwords, calls: Calls
) -> None:
    for password in ("ann's", "ann's", "x", "x", "ann's"):
        await held.user("file", headers("ann", password))
    assert calls.seen == [b"ann's", b"x", b"x"]


async def test_an_unknown_name_takes_a_verification_and_a_user_of_envoy_none(
    held: Passwords, calls: Calls
) -> None:
    await held.user("file", headers("eve", "x"))
    assert len(calls.seen) == 1
    await held.user("file", headers("quick", "x"))
    assert len(calls.seen) == 1


async def test_a_long_password_and_one_with_nul_are_refused_without_asking(
    held: Passwords, calls: Calls
) -> None:
    for password in ("x" * 73, "ann's\0", "ann's\0ann's"):
        assert await held.user("file", headers("ann", password)) is None
    assert calls.seen == []


async def test_a_change_of_the_rules_forgets_what_was_verified(held: Passwords, calls: Calls) -> None:
    await held.user("file", headers("ann", "ann's"))
    held.table.replace({"file": body(("ann", ANN), ("bob", hashed("new")))}, ())
    await held.user("file", headers("ann", "ann's"))
    assert len(calls.seen) == 2
    assert await held.user("file", headers("bob", "bob's")) is None
    assert await held.user("file", headers("bob", "new")) == "bob"


async def test_what_is_verified_during_a_change_is_not_remembered(held: Passwords, calls: Calls) -> None:
    calls.go.clear()
    asked = asyncio.create_task(held.user("file", headers("ann", "ann's")))
    await asyncio.sleep(0)
    held.table.replace({"file": body(("ann", ANN))}, ())
    calls.go.set()
    assert await asked == "ann"
    await held.user("file", headers("ann", "ann's"))
    assert len(calls.seen) == 2


async def test_requests_of_one_user_at_once_are_one_verification_whoever_leaves(
    held: Passwords, calls: Calls
) -> None:
    calls.go.clear()
    asked = [asyncio.create_task(held.user("file", headers("ann", "ann's"))) for _ in range(5)]
    await asyncio.sleep(0)
    asked[0].cancel()
    calls.go.set()
    assert await asyncio.gather(*asked[1:]) == ["ann"] * 4
    assert len(calls.seen) == 1


async def test_the_loop_is_free_and_beyond_the_limit_requests_are_refused_at_once(
    held: Passwords, calls: Calls
) -> None:
    calls.go.clear()
    asked = [asyncio.create_task(held.user("file", headers("ann", str(one)))) for one in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await held.user("file", headers("ann", "ann's"))
    calls.go.set()
    assert await asyncio.gather(*asked) == [None] * WAITING
    assert await held.user("file", headers("ann", "ann's")) == "ann"


async def test_no_more_are_remembered_than_may_be() -> None:
    held = with_users(Passwords(remembered=1))
    for _ in range(2):
        assert await held.user("file", headers("ann", "ann's")) == "ann"
        assert await held.user("file", headers("bob", "bob's")) == "bob"
    assert list(held._right) == [BOB.encode()]
    held.close()


async def test_a_list_that_has_not_come_is_said_to_be_missing(held: Passwords) -> None:
    with pytest.raises(Missing):
        await held.user("other", headers("ann", "ann's"))


@pytest.mark.parametrize("entry", ["", "$2b$04$short", "$2b$31$" + "." * 53, "$2b$03$" + "." * 53, "{SHA}x"])
def test_rules_without_a_hash_of_bcrypt_are_refused(held: Passwords, entry: str) -> None:
    assert "bcrypt" in held.table.replace({"file": body(("ann", entry))}, ())["file"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"Basic YTpiOmM=", ("a", b"b:c")),
        (b"bASIC   YTpiOmM", ("a", b"b:c")),
        (b"Basic Og==", ("", b"")),
        (b"Basic /zp4", ("\udcff", b"x")),
        (b"Basic YQ==", ("a", None)),
        (b"Basic YTpiO", ("", None)),
        (b"Basic !!", ("", None)),
        (b"BasicYTpi", ("", None)),
        (b"Bearer YTpi", ("", None)),
        (b"", ("", None)),
    ],
)
def test_credentials_are_read_as_the_script_reads_them(value: bytes, found: tuple[str, bytes | None]) -> None:
    assert credentials_of([base_pb2.HeaderValue(key="authorization", raw_value=value)]) == found


def test_envoy_is_not_told_slow_hashes_and_the_policy_server_none_of_the_others() -> None:
    settings = BasicAuthSettings(htpasswd=FILE)
    own = Consumer(basic_auth=ConsumerPassword(username="own", sha256="a" * 64))
    content = f"ann:{ANN}\nquick:{{SHA}}0DPiKuNIrrVmD8IUCuw1hQxNqZc=\n".encode()
    context = Context(
        consumers={"own": own}, contents={FILE: content}, route="a", effective={"basic_auth": settings}
    )
    policy = BasicAuth()
    script = policy.http_filters([settings], context)[-1].config
    assert ANN.encode() not in script.SerializeToString()
    (rule,) = policy.rules([settings], context)
    message = USERS.message.FromString(rule.build().SerializeToString())
    assert [(user.name, user.bcrypt) for user in message.users] == [("ann", ANN), ("own", ""), ("quick", "")]
    assert set(policy.on_route(settings, context).filter_configs) == {password_lookup.FILTER}
    assert set(Authentication().off_route(context).filter_configs) == {FILTER}
    assert "policy server" in policy.explain(settings, context)


def test_without_slow_hashes_nobody_is_asked() -> None:
    settings = BasicAuthSettings(htpasswd=FILE)
    content = b"quick:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=\n"
    context = Context(contents={FILE: content}, route="a", effective={"basic_auth": settings})
    policy = BasicAuth()
    assert list(policy.rules([settings], context)) == []
    assert policy.on_route(settings, context) == NOTHING
    assert policy.explain(settings, context) == policy.enforced_by
