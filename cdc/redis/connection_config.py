"""How to reach Redis: the settings of address, login, TLS and Sentinel. Names are those of Redis's own connector."""

from __future__ import annotations

from typing import Any, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from cdc.plugin import ConnectorConfig
from cdc.redis import uri

__all__ = ["RedisConnectionConfig"]


class RedisConnectionConfig(ConnectorConfig):
    """What `cdc.redis.access.Access` is made of."""

    redis_uri: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="Server: redis://user:password@host:port/database, rediss://… for TLS, unix:///path?db=0, "
        "redis+sentinel://user:password@host:port,host:port/master/database (rediss+sentinel://… for TLS), "
        "redis://user:password@host:port,host:port (some nodes of a cluster).",
    )
    redis_cluster_enabled: bool = Field(
        default=False,
        validation_alias=AliasChoices("redis.cluster.enabled", "redis.cluster"),
        description="redis.uri names nodes of a Redis Cluster or Valkey Cluster, from which all others are found.",
    )
    redis_username: str = Field(default="", description="User, if not in redis.uri.")
    redis_password: SecretStr = Field(default=SecretStr(""), description="Password, if not in redis.uri.")
    redis_timeout_ms: int = Field(
        default=10_000, ge=100, description="How long an answer of Redis may take before the connection counts as lost."
    )
    redis_tls: bool = Field(default=False, description="TLS, whatever redis.uri begins with.")
    redis_insecure: bool = Field(
        default=False,
        description="true: take any certificate of the server, for any name. Anybody on the way can then read all.",
    )
    redis_cacert: str = Field(
        default="", description="File with the certificate authorities to trust (PEM), beside the system's."
    )
    redis_key_cert: str = Field(default="", description="File with the client certificate and its chain (PEM).")
    redis_key_file: str = Field(default="", description="File with the client's private key (PEM).")
    redis_key_password: SecretStr = Field(
        default=SecretStr(""), description="Password of the client's private key, if it has one."
    )
    redis_sentinel_nodes: str = Field(
        default="",
        description="Sentinels, host:port, comma-separated, in place of the host in redis.uri, which then has none "
        "(redis:///0).",
    )
    redis_sentinel_master_name: str = Field(default="", description="What the sentinels call the master.")
    redis_sentinel_username: str = Field(default="", description="User for the sentinels, if they want one.")
    redis_sentinel_password: SecretStr = Field(
        default=SecretStr(""), description="Password for the sentinels, if they want one."
    )
    redis_sentinel_tls: bool | None = Field(
        default=None, description="Whether the sentinels are asked over TLS. Default: as the master is."
    )

    @field_validator("redis_uri")
    @classmethod
    def _uri(cls, value: SecretStr) -> SecretStr:
        if wrong := uri.fault(value.get_secret_value()):
            raise ValueError(wrong)
        return value

    @field_validator("redis_sentinel_nodes")
    @classmethod
    def _nodes(cls, value: str) -> str:
        if value:
            uri.nodes(value)
        return value

    @field_validator("redis_sentinel_tls", mode="before")
    @classmethod
    def _as_the_master(cls, value: Any) -> Any:
        return None if value == "" else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.redis_key_cert) != bool(self.redis_key_file):
            raise ValueError("redis.key.cert and redis.key.file belong together: a client certificate needs its key")
        address = self.redis_uri.get_secret_value()
        named = uri.sentinel(address) is not None
        if bool(self.redis_sentinel_nodes) != bool(self.redis_sentinel_master_name):
            raise ValueError("redis.sentinel.nodes and redis.sentinel.master.name belong together")
        if self.redis_sentinel_nodes and "redis_uri" in self.model_fields_set:
            parts = address.partition("://")
            if named or parts[0].lower() not in ("redis", "rediss") or not _hostless(parts[2]):
                raise ValueError(
                    "redis.uri and redis.sentinel.nodes both say where Redis is; leave the host out of redis.uri, as "
                    "in redis:///0, or write redis+sentinel://…"
                )
        if not named and not self.redis_sentinel_nodes:
            for name in ("username", "password", "tls"):
                if f"redis_sentinel_{name}" in self.model_fields_set:
                    raise ValueError(
                        f"redis.sentinel.{name} is set, but neither redis.sentinel.nodes nor sentinels in redis.uri"
                    )
        self._consistent_cluster(address, named)
        tls = self.redis_tls or address.lower().startswith("rediss") or bool(self.redis_sentinel_tls)
        for name in ("insecure", "cacert", "key_cert"):
            if getattr(self, f"redis_{name}") and not tls:
                raise ValueError(
                    f"redis.{name.replace('_', '.')} is set, but nothing uses TLS; write rediss:// or set redis.tls"
                )
        return self

    def _consistent_cluster(self, address: str, named: bool) -> None:
        plain = not named and address.lower().startswith(("redis://", "rediss://"))
        if not self.redis_cluster_enabled:
            if plain and len(uri.seeds(address)) > 1:
                raise ValueError("redis.uri names several servers; that is for a cluster: set redis.cluster.enabled")
            return
        if named or self.redis_sentinel_nodes:
            raise ValueError("redis.cluster.enabled and sentinels: a cluster has none. Name nodes in redis.uri")
        if not plain:
            raise ValueError("redis.cluster.enabled: redis.uri must name nodes, as redis://host:port,host:port")
        if int(uri.options(uri.single(address)).get("db") or 0) != 0:
            raise ValueError("redis.cluster.enabled: a cluster has database 0 alone; leave it out of redis.uri")


def _hostless(rest: str) -> bool:
    return not rest.partition("/")[0].rpartition("@")[2]
