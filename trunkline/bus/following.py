"""Following topics of one partition for as long as a process lives, whatever becomes of them meanwhile.

A consumer that is given an error in the place of a record (records expired, a right was taken away) gives nothing more of that
partition, without another word; of a topic that was made anew it says nothing at all (librdkafka#4898). Whoever follows a topic for
others must notice: what they would miss is missed silently.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from trunkline.bus.kafka import KafkaSettings, closing, offset_of, records_of, watermarks
from trunkline.bus.topics import TopicIdentity, topic_identities
from trunkline.core.errors import RetriableError, TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
LOOK_SECONDS: Final = 0.5
"""How often it is looked whether to end; a record comes at once."""
CHECK_SECONDS: Final = 10.0
"""How often it is asked whether the topics are still the same."""
AGAIN_SECONDS: Final = 2.0
SAY_SECONDS: Final = 60.0
_MOST: Final = 500


class Following:
    """Follows topics from where `positions` says, and hands every record to `take`, on the thread that calls `run`.

    `look` is called several times a second with the reader, and `failed` each time that reading failed. Where it fails in a way that
    the client does not heal, it begins again from where it was; from the first record that is kept where the topic is another one by
    then, or what was next has expired.
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
        self._identities: Mapping[str, TopicIdentity] = {}
        self._checked = 0.0
        self._said: tuple[str, float] | None = None

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
                self._say(str(error))
                stop.wait(AGAIN_SECONDS)

    def _follow(self, reader: Consumer, stop: threading.Event) -> None:
        self._check()  # first: of what is made anew afterwards it is known then that it is another
        reader.assign([TopicPartition(topic, 0, position) for topic, position in self._positions.items()])
        while not stop.is_set():
            messages = [*reader.consume(1, LOOK_SECONDS), *reader.consume(_MOST, 0)]
            for message in records_of(messages, "a topic can't be followed"):
                self._positions[message.topic() or ""] = offset_of(message) + 1
                self._hand_over(message)
            if time.monotonic() - self._checked > CHECK_SECONDS:
                self._check()
            self._look(reader)

    def _hand_over(self, message: Message) -> None:
        try:
            self._take(message)
        except Exception:
            # Somebody else's record is no reason to hear nothing of all that come after it.
            log.exception("a record can't be taken", topic=message.topic(), offset=message.offset())

    def _check(self) -> None:
        """Raises where a topic is gone or is another one of the same name."""
        self._checked = time.monotonic()
        try:
            now = topic_identities(self._settings, self._positions, timeout=CHECK_SECONDS)
        except TrunklineError:
            return  # whether the broker is away is not the question here
        # Of a topic that is gone it stays known which one it was: one that is made meanwhile is another, and read from its beginning.
        before, self._identities = self._identities, {**self._identities, **now}
        for topic in self._positions:
            if topic not in now:
                raise RetriableError(f"the topic {topic} is gone", code="kafka.unknown_topic")
            if topic in before and before[topic].id != now[topic].id:
                self._positions[topic] = 0
                raise RetriableError(f"the topic {topic} was made anew", code="topic.made_anew")

    def _find_places(self, reader: Consumer) -> None:
        for topic, position in self._positions.items():
            first, end = watermarks(reader, topic, 0, AGAIN_SECONDS)
            if not first <= position <= end:
                log.warning("a topic is not what was followed", topic=topic, offset=position, begins_at=first)
                self._positions[topic] = first

    def _say(self, reason: str) -> None:
        """Says why it is tried again: once, and once a minute while it lasts."""
        now = time.monotonic()
        if self._said is None or self._said[0] != reason or now - self._said[1] > SAY_SECONDS:
            self._said = (reason, now)
            log.warning("topics can't be followed; it is tried again", topics=", ".join(self._positions), reason=reason)
