"""What every source that receives must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trunkline.core.contracts import PushSource, Reception, Request
from trunkline.core.testing.kits import PushSourceKit
from trunkline.core.testing.plugin_suite import PluginSuite, Scene, suite_class

_GARBAGE = (b"", b"\0", b"{", b"[" * 5_000, b"\xff\xfe\xfd", b"null", b"[]", b"%%%=&&&", b'{"a": 1e999}', b"<a/>")
_ODD_HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "application/json; charset=no-such"},
    {"content-type": "\xff"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"authorization": "Basic !!!"},
    {"authorization": "Bearer"},
    {"content-encoding": "gzip", "content-type": "application/json"},
)


def push_source_suite(plugin: type[PushSource], *, factory: Callable[[Path], PushSourceKit]) -> type[PushSourceSuite]:
    """The test class of a source that receives. Assign it to a name that begins with `Test`."""
    made: type[PushSourceSuite] = suite_class(PushSourceSuite, plugin, factory)
    return made


class PushSourceSuite(PluginSuite[PushSourceKit]):
    """It believes whom it should, keeps what it can't read, and never fails for what a sender may send."""

    def test_a_good_request_becomes_an_event(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                reception = await heard(scene, source, kit.request(0))
            assert 200 <= reception.status < 300, reception
            assert reception.events
            assert not reception.rejected
            assert all(event.raw for event in reception.events), (
                "the raw bytes are needed where the schema refuses the value"
            )

        self.perform(kit, work)

    def test_a_forged_request_is_refused_and_makes_nothing(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                reception = await heard(scene, source, kit.forged())
            assert reception.status in (401, 403), reception
            assert nothing(reception)

        self.perform(kit, work)

    def test_a_repeated_request_is_known_by_its_key(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                first = await heard(scene, source, kit.request(0))
                other = await heard(scene, source, kit.request(1))
            # The engine on another worker must come to the same key.
            async with scene.opened() as source:
                again = await heard(scene, source, kit.request(0))
            assert first.dedupe_key is not None
            assert first.dedupe_key == again.dedupe_key
            assert first.dedupe_key != other.dedupe_key
            assert first.dedupe_window > 0

        self.perform(kit, work)

    def test_a_known_senders_unreadable_body_is_kept_with_its_reason_and_place(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            request = kit.unreadable()
            async with scene.opened() as source:
                reception = await heard(scene, source, request)
            assert reception.status == 202, reception
            assert not reception.events
            assert len(reception.rejected) == 1, reception
            rejected = reception.rejected[0]
            assert rejected.raw == request.body
            assert rejected.reason
            assert rejected.place

        self.perform(kit, work)

    def test_a_body_beyond_the_limit_is_refused(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                assert source.max_body > 0
                body = b"x" * (source.max_body + 1)
                reception = await heard(scene, source, replace(kit.request(0), body=body))
            assert 400 <= reception.status < 500, reception
            assert nothing(reception)

        self.perform(kit, work)

    def test_another_method_is_refused(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                reception = await heard(scene, source, replace(kit.request(0), method="DELETE", body=b""))
            assert 400 <= reception.status < 500, reception
            assert nothing(reception)

        self.perform(kit, work)

    def test_garbage_of_a_stranger_never_raises_and_makes_nothing(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            forged = kit.forged()
            async with scene.opened() as source:
                for body in _GARBAGE:
                    reception = await heard(scene, source, replace(forged, body=body))
                    assert 400 <= reception.status < 500, (body[:20], reception)
                    assert nothing(reception), body[:20]
                for headers in _ODD_HEADERS:
                    reception = await heard(scene, source, replace(forged, headers=headers))
                    assert 400 <= reception.status < 500, (headers, reception)
                    assert nothing(reception), headers

        self.perform(kit, work)

    def test_a_correlation_id_that_comes_in_is_kept(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            request = kit.request(0)
            tagged = replace(request, headers={**request.headers, "x-correlation-id": "conformance-1"})
            async with scene.opened() as source:
                reception = await heard(scene, source, tagged)
            assert {event.correlation_id for event in reception.events} == {"conformance-1"}

        self.perform(kit, work)

    def test_its_path_is_a_path(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            assert scene.made().path.startswith("/")

        self.perform(kit, work)

    def test_it_opens_and_closes_without_a_trace(self, kit: PushSourceKit) -> None:
        async def work(scene: Scene) -> None:
            for _ in range(2):
                async with scene.opened():
                    pass
            await scene.made().close()

        self.perform(kit, work)


async def heard(scene: Scene, source: PushSource, request: Request) -> Reception:
    """The source's judgement; what it says to the sender is noted."""
    reception = await source.receive(request)
    scene.said.say((reception.status, reception.reason, reception.reply, dict(reception.headers)))
    for rejected in reception.rejected:
        scene.said.say((rejected.reason, rejected.place))
    return reception


def nothing(reception: Reception) -> bool:
    """Whether nothing is published."""
    return not reception.events and not reception.rejected
