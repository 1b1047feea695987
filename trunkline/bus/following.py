"""Following topics of one partition for as long as a process lives, whatever becomes of them meanwhile.

A consumer that is given an error in the place of a record (records expired, a right was taken away) gives nothing more of that
partition, without another word; of a topic that was made anew it says nothing at all (librdkafka#4898). Whoever follows a topic for
others must notice: what they would miss is missed silently.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from trunkline.bus.kafka import KafkaSettings, closing, offset_of, passes, translate, watermarks
from trunkline.bus.topics import TopicIdentity, topic_identities
from trunkline.core.errors import FatalError, RetriableError, TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
LOOK_SECONDS: Final = 0.5
"""How often it is looked whether to end; a record comes at once."""
CHECK_SECONDS: Final = 10.0
"""How often it is asked whether the topics are still the same."""
AGAIN_SECONDS: Final = 2.0
SLOWEST_SECONDS: Final = 30.0
"""How long a topic that can't be followed is left alone at most."""
SAY_SECONDS: Final = 60.0
_MOST: Final = 500


@dataclass(slots=True)
class Unheard:
    """A topic that can't be followed: why, since when (Unix seconds), and when it is tried again (monotonic)."""

    error: TrunklineError
    since: float
    again: float
    wait: float = AGAIN_SECONDS


class Following:
    """Follows topics from where `positions` says, and hands every record to `take`, on the thread that calls `run`.

    `look` is called several times a second with the reader, and `failed` each time that reading failed. Where it fails in a way that
    the client does not heal, it begins again from where it was; from the first record that is kept where the topic is another one by
    then, or what was next has expired. A topic that can't be read is tried again beside the others, which are followed meanwhile.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        positions: Mapping[str, int],
        take: Callable[[Message], None],
        look: Callable[[Consumer], None] = lambda _: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._positions = dict(positions)
        self._take = take
        self._look, self._failed = look, failed
        self._identities: dict[str, TopicIdentity] = {}
        self._unheard: dict[str, Unheard] = {}
        self._checked = 0.0
        self._moved = False
        """Whether the reader is to be told anew what it reads, and from where."""
        self._said: dict[str, tuple[str, float]] = {}

    @property
    def unheard(self) -> Mapping[str, Unheard]:
        """The topics that can't be followed now."""
        return dict(self._unheard)

    def run(self, stop: threading.Event) -> None:
        """Follows until `stop` is set."""
        failed = False
        while not stop.is_set():
            try:
                with closing(self._settings.follower()) as reader:
                    if failed:
                        self._find_places(reader)
                    self._follow(reader, stop)
            except (KafkaException, TrunklineError) as error:
                failed = True
                self._failed()
                self._say(", ".join(self._positions), error)
                stop.wait(AGAIN_SECONDS)

    def _follow(self, reader: Consumer, stop: threading.Event) -> None:
        self._check()  # first: of what is made anew afterwards it is known then that it is another
        self._moved = True
        while not stop.is_set():
            if self._moved:
                self._moved = False
                heard = [topic for topic in self._positions if topic not in self._unheard]
                reader.assign([TopicPartition(topic, 0, self._positions[topic]) for topic in heard])
            self._hear([*reader.consume(1, LOOK_SECONDS), *reader.consume(_MOST, 0)])
            if time.monotonic() - self._checked > CHECK_SECONDS:
                self._check()
            for topic, one in self.unheard.items():
                if one.again <= time.monotonic():
                    self._try_again(reader, topic)
            self._look(reader)

    def _hear(self, messages: Iterable[Message]) -> None:
        for message in messages:
            topic, error = message.topic() or "", message.error()
            if error is None:
                if topic not in self._unheard:
                    self._positions[topic] = offset_of(message) + 1
                    self._hand_over(message)
            elif passes(error, member=False):
                continue
            elif topic in self._positions and not error.fatal():
                self._leave(topic, translate(error, "a topic can't be followed", where=topic))
            else:
                raise translate(error, "topics can't be followed")

    def _hand_over(self, message: Message) -> None:
        try:
            self._take(message)
        except Exception:
            # Somebody else's record is no reason to hear nothing of all that come after it.
            log.exception("a record can't be taken", topic=message.topic(), offset=message.offset())

    def _leave(self, topic: str, error: TrunklineError) -> None:
        """Goes on without a topic, and says so."""
        before, now = self._unheard.get(topic), time.monotonic()
        wait = AGAIN_SECONDS if before is None else min(2 * before.wait, SLOWEST_SECONDS)
        since = time.time() if before is None else before.since
        self._unheard[topic] = Unheard(error, since, now + wait, wait)
        self._moved = self._moved or before is None
        self._failed()
        self._say(topic, error)

    def _try_again(self, reader: Consumer, topic: str) -> None:
        try:
            identity = topic_identities(self._settings, [topic], timeout=AGAIN_SECONDS).get(topic)
            if identity is None:
                raise _gone(topic)
            self._know(topic, identity)
            self._find_place(reader, topic)
        except TrunklineError as error:
            self._leave(topic, error)
            return
        self._moved = True
        del self._unheard[topic]
        log.info("a topic is followed again", topic=topic, offset=self._positions[topic])

    def _check(self) -> None:
        """Leaves topics that are gone, may not be described, or are others of the same name."""
        self._checked = time.monotonic()
        for topic, found in self._looked_up([topic for topic in self._positions if topic not in self._unheard]).items():
            if isinstance(found, TrunklineError):
                self._leave(topic, found)
            elif self._know(topic, found):
                self._leave(topic, RetriableError(f"the topic {topic} was made anew", code="topic.made_anew"))

    def _looked_up(self, topics: list[str]) -> dict[str, TopicIdentity | TrunklineError]:
        """What the topics are now; nothing where the broker is away, which is not the question here."""
        try:
            now = topic_identities(self._settings, topics, timeout=CHECK_SECONDS)
        except FatalError as error:
            if len(topics) == 1:
                return {topics[0]: error}
            # One of them: which, is seen by asking for each.
            found: dict[str, TopicIdentity | TrunklineError] = {}
            for topic in topics:
                found |= self._looked_up([topic])
            return found
        except TrunklineError:
            return {}
        return {topic: now.get(topic) or _gone(topic) for topic in topics}

    def _know(self, topic: str, identity: TopicIdentity) -> bool:
        """Notes which topic it is. Whether it is another one than before, which is read from its beginning.

        Of a topic that is gone it stays known which one it was: one that is made meanwhile is another.
        """
        before = self._identities.get(topic)
        self._identities[topic] = identity
        if before is None or before.id == identity.id:
            return False
        self._positions[topic] = 0
        return True

    def _find_places(self, reader: Consumer) -> None:
        for topic in self._positions:
            if topic in self._unheard:
                continue
            try:
                self._find_place(reader, topic)
            except FatalError as error:
                self._leave(topic, error)

    def _find_place(self, reader: Consumer, topic: str) -> None:
        position = self._positions[topic]
        first, end = watermarks(reader, topic, 0, AGAIN_SECONDS)
        if not first <= position <= end:
            log.warning("a topic is not what was followed", topic=topic, offset=position, begins_at=first)
            self._positions[topic] = first

    def _say(self, topic: str, error: Exception) -> None:
        """Says why it is tried again: once, and once a minute while it lasts."""
        now, reason = time.monotonic(), str(error)
        code, hint = (error.code, error.hint) if isinstance(error, TrunklineError) else (None, None)
        said = self._said.get(topic)
        if said is None or said[0] != reason or now - said[1] > SAY_SECONDS:
            self._said[topic] = (reason, now)
            log.warning(
                "a topic can't be followed; it is tried again", topic=topic, reason=reason, code=code, hint=hint
            )


def _gone(topic: str) -> FatalError:
    return FatalError(
        f"the topic {topic} is gone",
        hint="start a worker anew, which creates the bus's own topics, or create it as it was",
        code="kafka.unknown_topic",
    )
