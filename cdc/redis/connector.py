"""The plugin: a Redis sink connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, cast

from cdc.errors import CdcError, Finding, RetriableError
from cdc.mirror.keys import KeyColumn, Template, reserved_overlap
from cdc.mirror.languages import Language, overlap
from cdc.mirror.mending import Mender
from cdc.mirror.store import Capabilities, Store
from cdc.plugin import Connector, SinkConnector, Stream, TaskContext
from cdc.redis.access import Access
from cdc.redis.cluster.check import check_cluster
from cdc.redis.cluster.mend import ClusterMender
from cdc.redis.cluster.nodes import Nodes
from cdc.redis.cluster.store import ClusterStore
from cdc.redis.config import RedisConfig
from cdc.redis.mend import RedisMender
from cdc.redis.server import permission_findings, server_findings
from cdc.redis.store import RedisStore

__all__ = ["RedisSinkConnector"]


class RedisSinkConnector(SinkConnector):
    """Mirrors topics into Redis hashes, one a row."""

    aliases: ClassVar[tuple[str, ...]] = ("com.redis.kafka.connect.RedisSinkConnector",)
    config_model = RedisConfig

    @property
    def settings(self) -> RedisConfig:
        return cast(RedisConfig, self.config)

    @property
    def access(self) -> Access:
        """How to connect to the server."""
        return Access.of(self.settings)

    def validate(self, siblings: Mapping[str, Connector]) -> Sequence[Finding]:
        """Topics, templates, and key spaces that overlap whatever the keys turn out to be (EXACTNESS.md H22)."""
        config = self.settings
        findings = []
        if bool(config.topic_names) == bool(config.topics_regex):
            said = (
                "both topics and topics.regex are set"
                if config.topic_names
                else "neither topics nor topics.regex is set"
            )
            findings.append(Finding(said, key="topics", remedy="Set exactly one of them"))
        for topic, text in config.redis_keys.items():
            key = f"redis.key.{topic}"
            try:
                Template(text)
            except ValueError as error:
                findings.append(Finding(str(error), key=key))
                continue
            if not config.reads(topic):
                findings.append(Finding("names a topic that the connector does not read", key=key))
        queue = config.errors_deadletterqueue_topic_name
        if queue and config.reads(queue):
            findings.append(
                Finding(
                    f"the connector would read its own dead letters from {queue}",
                    key="errors.deadletterqueue.topic.name",
                    remedy="Choose a name that topics and topics.regex do not have",
                )
            )
        if not findings:
            findings += self._overlaps(siblings)
        return findings

    def _overlaps(self, siblings: Mapping[str, Connector]) -> Iterator[Finding]:
        mine = list(self._languages())
        for number, (topic, language) in enumerate(mine):
            own = reserved_overlap(language)
            if own is not None:
                yield Finding(f"keys such as {own!r} begin with __cdc:, which is kept for offsets", key="redis.key")
            for other, theirs in mine[:number]:
                if (shared := overlap(language, theirs)) is not None:
                    yield _shares(f"topics {other} and {topic}", shared)
        for name, sibling in siblings.items():
            if not isinstance(sibling, RedisSinkConnector) or sibling.settings.name >= self.settings.name:
                continue  # each pair is told once
            if sibling.access.keyspace != self.access.keyspace:
                continue
            for other, theirs in sibling._languages():
                for topic, language in mine:
                    if (shared := overlap(language, theirs)) is not None:
                        yield _shares(f"topic {topic} and topic {other} of connector {name}", shared)

    def _languages(self) -> Iterator[tuple[str, Language]]:
        config = self.settings
        for topic in dict.fromkeys((*config.topic_names, *config.redis_keys)):
            yield topic, config.template(topic).least(topic)

    def fits(self, streams: Sequence[Stream]) -> Sequence[Finding]:
        """Whether the templates are keys of the tables that the worker's sources write."""
        config = self.settings
        findings = []
        seen: list[tuple[str, Language]] = []
        for stream in streams:
            if not config.reads(stream.topic) or not stream.key:
                continue
            key = f"redis.key.{stream.topic}" if stream.topic in config.redis_keys else "redis.key"
            template = config.template(stream.topic)
            try:
                template.bind(stream.topic, [KeyColumn(name) for name in stream.key])
            except ValueError as error:
                findings.append(Finding(str(error), key=key))
                continue
            language = template.least(stream.topic)
            for other, theirs in seen:
                if (shared := overlap(language, theirs)) is not None:
                    findings.append(_shares(f"topics {other} and {stream.topic}", shared, key))
            seen.append((stream.topic, language))
        return findings

    def check(self) -> Sequence[Finding]:
        access = self.access
        prefixes = sorted({part for _, language in self._languages() if isinstance(part := language[0], bytes)})
        if access.seeds:
            return check_cluster(access, prefixes)
        try:
            wire = access.wire("check")
        except RetriableError as error:
            return [Finding(str(error), key="redis.uri", remedy="Start Redis, or correct redis.uri")]
        except CdcError as error:
            return [Finding(str(error), key="redis.uri")]
        found: Sequence[Finding] = ()
        try:
            user = wire.ask("ACL", "WHOAMI")
            known = str(access.options.get("username") or "default")
            found = permission_findings(wire, user.decode() if isinstance(user, bytes) else known, prefixes)
            wire = access.wire("check")
            return [*found, *server_findings(wire)]
        except CdcError as error:  # without INFO for example, which is among the permissions
            return found or [Finding(str(error), key="redis.uri")]
        finally:
            wire.close()

    def store(self, context: TaskContext) -> Store:
        config = self.settings
        name = f"{context.connector}-{context.task}"
        capabilities = Capabilities(
            atomic_offsets=not config.redis_cluster_enabled,
            fenced=not config.redis_cluster_enabled,
            truncate=True,
            max_batch_records=config.batch_max_records,
            max_batch_bytes=config.batch_max_bytes,
        )
        if config.redis_cluster_enabled:
            nodes = partial(Nodes.reach, self.access, name, config.redis_timeout_ms / 1000)
            fence_ttl = config.redis_cluster_tombstone_ttl_ms
            return ClusterStore(config.name, nodes, capabilities, config.redis_ttl, fence_ttl)
        return RedisStore(config.name, partial(self.access.wire, name), capabilities, config.redis_ttl)

    def mender(self, topic: str, partitions: int, client: str, topic_id: str | None = None) -> Mender:
        config = self.settings
        if config.redis_cluster_enabled:
            nodes = partial(Nodes.reach, self.access, client, config.redis_timeout_ms / 1000)
            fence_ttl = config.redis_cluster_tombstone_ttl_ms
            return ClusterMender(config.name, topic, partitions, nodes, fence_ttl, topic_id)
        return RedisMender(config.name, topic, partitions, self.access.wire(client))


def _shares(who: str, shared: bytes, key: str = "redis.key") -> Finding:
    return Finding(
        f"{who} would share keys such as {shared.decode('utf-8', 'replace')}",
        key=key,
        remedy="Put {schema} or {topic} into redis.key, or set redis.key.<topic> for one of them",
    )
