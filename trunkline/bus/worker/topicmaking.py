"""The topics that pipelines need: made once each, and again only where what is wanted of them changed."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import (
    Difference,
    TopicPlan,
    ensure_topics,
    grow_topics,
    matching_topics,
    pipeline_topics,
    topic_plan,
    topic_states,
)
from trunkline.core.errors import RetriableError, TrunklineError, UnavailableError
from trunkline.core.log import get_logger
from trunkline.core.manifests import Pipeline, Project
from trunkline.registry.client import RegistryClient

log = get_logger(__name__)


class TopicMaker:
    """Makes the topics of one worker's pipelines. All methods block and belong in a thread; they may be called by several."""

    def __init__(self, settings: KafkaSettings, names: Names, registry: RegistryClient) -> None:
        self._settings = settings
        self._names = names
        self._registry = registry
        self._lock = threading.Lock()
        self._made: dict[str, TopicPlan] = {}
        self._levels: dict[str, str] = {}
        self._ours: set[str] = set()
        """Topics that belong to one pipeline alone, and follow its inputs."""
        self.differences: dict[str, list[Difference]] = {}
        """In what topics are not as their manifests say, by topic."""

    def make(self, project: Project, pipelines: Iterable[str]) -> None:
        """The topics of the manifests, and those of these pipelines; compatibility levels.

        What Kafka or the registry refuse of one is logged, and stops no other: `make_for` says it to the pipeline. Raises
        `RetriableError` and `UnavailableError` where the cluster does not answer.
        """
        declared = [
            topic_plan(project, name) for name, topic in project.topics.items() if _is_made(name, topic.spec.external)
        ]
        with self._lock:
            self._ensure_each(declared)
            self._ensure_each(self._own(project, [project.pipelines[name] for name in pipelines]))
            self._set_levels(project)

    def make_for(self, project: Project, pipeline: Pipeline) -> None:
        """The topics of one pipeline. Raises what Kafka says; costs nothing where they were made."""
        named = [*pipeline.inputs, *(target.topic for target in pipeline.targets)]
        declared = {
            name: topic_plan(project, name)
            for name in named
            if name in project.topics and _is_made(name, project.topics[name].spec.external)
        }
        with self._lock:
            self._ensure([plan for name, plan in declared.items() if self._made.get(name) != plan])
            own = [self._names.dead_letters(pipeline.metadata.name)]
            if pipeline.inputs:
                own.append(self._names.retry(pipeline.metadata.name))
            if not all(name in self._made for name in own):
                self._ensure(self._own(project, [pipeline]))

    def forget(self, topics: Iterable[str], *, grown: str | None = None) -> None:
        """These are gone: they are made again where they are asked for. The inputs of the pipeline `grown` have more partitions."""
        with self._lock:
            for topic in topics:
                self._made.pop(topic, None)
            if grown is not None:
                self._made.pop(self._names.dead_letters(grown), None)

    def _own(self, project: Project, pipelines: list[Pipeline]) -> list[TopicPlan]:
        """Dead-letter and retry topics, which follow their inputs."""
        inputs = {topic for pipeline in pipelines for topic in pipeline.inputs}
        existing = topic_states(self._settings, matching_topics(self._settings, inputs)) if inputs else {}
        plans = pipeline_topics(project, self._names, existing, pipelines)
        self._ours |= {plan.name for plan in plans}
        return plans

    def _ensure(self, plans: list[TopicPlan]) -> None:
        if not plans:
            return
        found = self._grown(ensure_topics(self._settings, plans))
        for plan in plans:
            self._made[plan.name] = plan
            self.differences.pop(plan.name, None)
        for difference in found:
            self.differences.setdefault(difference.topic, []).append(difference)
            log.warning("topic differs from its manifest", topic=difference.topic, difference=str(difference))

    def _grown(self, differences: list[Difference]) -> list[Difference]:
        """Gives topics of ours the partitions that their inputs have by now, and gives the differences that are left."""
        short = {
            one.topic: int(one.wanted)
            for one in differences
            if one.topic in self._ours and one.setting == "partitions" and int(one.wanted) > int(one.found)
        }
        try:
            grow_topics(self._settings, short)
        except (RetriableError, UnavailableError):
            raise
        except TrunklineError as error:
            log.warning("topics can't follow their inputs", topics=sorted(short), reason=str(error), code=error.code)
            return differences
        return [one for one in differences if not (one.topic in short and one.setting == "partitions")]

    def _ensure_each(self, plans: list[TopicPlan]) -> None:
        """All at once where Kafka takes them all, else one by one."""
        wanted = [plan for plan in plans if self._made.get(plan.name) != plan]
        try:
            self._ensure(wanted)
        except (RetriableError, UnavailableError):
            raise
        except TrunklineError:
            for plan in wanted:
                self._attempt(plan)

    def _attempt(self, plan: TopicPlan) -> None:
        try:
            self._ensure([plan])
        except (RetriableError, UnavailableError):
            raise
        except TrunklineError as error:
            log.error("a topic can't be made", topic=plan.name, reason=str(error), code=error.code)

    def _set_levels(self, project: Project) -> None:
        for subject, level in project.levels():
            if self._levels.get(subject) == level:
                continue
            try:
                self._registry.set_level(subject, level)
            except TrunklineError as error:
                log.warning("a compatibility level can't be set", subject=subject, reason=str(error), code=error.code)
                continue
            self._levels[subject] = level


def _is_made(name: str, external: bool) -> bool:
    """Whether a manifest's topic is ours to make: not one of somebody else, and no family."""
    return not external and not name.endswith(".*")
