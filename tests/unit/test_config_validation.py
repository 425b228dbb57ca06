"""A configuration is valid as a whole, or all that is wrong with it is told at once: file, line, key, nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import cdc.config
from cdc.config import Config, converter_properties
from cdc.errors import ConfigError

pytestmark = pytest.mark.usefixtures("dummies")

WORKER = """\
worker:
  bootstrap.servers: localhost:9092
  key.converter: plain
  value.converter: plain
"""
SHOP = "connectors:\n  shop:\n    connector.class: sleeper\n"


def load(*texts: str, environment: Mapping[str, str] | None = None, **files: str) -> Config:
    named = {f"{'bcd'[order]}.yaml": text for order, text in enumerate(texts)}
    named |= {name.replace("__", "."): text for name, text in files.items()}
    return cdc.config.loads(named, {} if environment is None else environment)


def findings(*texts: str, environment: Mapping[str, str] | None = None, **files: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(*texts, environment=environment, **files)
    return [str(finding) for finding in raised.value.findings]


def test_the_bridge_of_the_design_has_its_defaults() -> None:
    config = load(WORKER + SHOP)
    assert config.worker.group_id == "cdc"
    assert config.worker.listeners == "http://127.0.0.1:8083"
    assert config.embedded_registry
    assert config.properties["offset.storage.topic"] == "cdc-offsets"
    (shop,) = config.connectors
    assert (shop.name, shop.kind, shop.tasks) == ("shop", "source", 1)
    assert shop.properties["name"] == "shop"
    assert shop.connector.config.tasks_max == 1


def test_all_faults_of_all_files_are_told_in_file_order() -> None:
    assert findings(
        """\
worker:
  bootstrap.servers: localhost
  shema.registry.url: embedded
  key.converter: plain
  value.converter: plane
  offset.storage.partitions: many
  exactly.once.source.support: enable
  task.shutdown.graceful.timeout.ms: 60000
conectors: {}
connectors:
  shop:
    connector.class: sleeper
    database.hostnam: localhost
    hostname: localhost
    database.port: 70000
    snapshot.mode: initail
    tombstones.on.delete: perhaps
    slot.name: Shop-Slot
    key.converter.encodings: utf-8
  other:
    connector.class: slepper
  nothing:
    tasks.max: 1
""",
        """\
connectors:
  shop:
    connector.class: sleeper
""",
    ) == [
        "b.yaml:2: worker.bootstrap.servers: expected host:port, comma-separated, got 'localhost'",
        "b.yaml:3: worker.shema.registry.url: unknown key. Did you mean schema.registry.url?",
        "b.yaml:5: worker.value.converter: there is no converter plane: did you mean plain?",
        "b.yaml:6: worker.offset.storage.partitions: expected a whole number, got 'many'",
        "b.yaml:7: worker.exactly.once.source.support: expected one of enabled, disabled, got 'enable'. "
        "Did you mean enabled?",
        "b.yaml:8: worker.task.shutdown.graceful.timeout.ms: expected at most 25000, got '60000'",
        "b.yaml:9: conectors: unknown key. Did you mean connectors?",
        "b.yaml:13: connectors.shop.database.hostnam: unknown key. Did you mean database.hostname?",
        "b.yaml:14: connectors.shop.hostname: unknown key. Did you mean database.hostname?",
        "b.yaml:15: connectors.shop.database.port: expected at most 65535, got '70000'",
        "b.yaml:16: connectors.shop.snapshot.mode: expected one of initial, no_data, got 'initail'. "
        "Did you mean initial?",
        "b.yaml:17: connectors.shop.tombstones.on.delete: expected true or false, got 'perhaps'",
        "b.yaml:18: connectors.shop.slot.name: expected text that matches ^[a-z0-9_]*$, got 'Shop-Slot'",
        "b.yaml:19: connectors.shop.key.converter.encodings: unknown key. Known is encoding",
        "b.yaml:21: connectors.other.connector.class: there is no connector slepper: did you mean sleeper?",
        "b.yaml:22: connectors.nothing.connector.class: is required. Installed are "
        "crasher, drain, postgres, redis, sleeper",
        "c.yaml:2: connectors.shop: there is a connector of this name at b.yaml:11. Rename one of them",
    ]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("connectors: {}\n", "b.yaml: worker: no file has worker settings. Add worker: with them"),
        (
            "worker:\n  group.id: x\n" + SHOP,
            "b.yaml:1: worker.bootstrap.servers: is required. Kafka brokers to start from",
        ),
        (WORKER, "b.yaml: connectors: no file has a connector. Add connectors: with at least one"),
        (
            "bootstrap.servers: x:1\n",
            "b.yaml:1: has neither worker: nor connectors:. See cdc config --reference for both",
        ),
        (WORKER + "connectors:\n  - shop\n", "b.yaml:5: connectors: expected keys and values"),
        (WORKER + "connectors:\n  shop: sleeper\n", "b.yaml:6: connectors.shop: expected keys and values"),
        (WORKER + SHOP + "    name: other\n", "b.yaml:8: connectors.shop.name: the connector is called shop above. "),
        (
            WORKER + "  listeners: http://0.0.0.0:8083\n" + SHOP,
            "b.yaml:5: worker.listeners: 0.0.0.0 is not a loopback address, and the listener has neither TLS nor",
        ),
        (
            WORKER + "  listeners: https://127.0.0.1:1\n" + SHOP,
            "b.yaml:5: worker.listeners: expected one http://host:port",
        ),
        (
            WORKER + "  schema.registry.url: registry:8081\n" + SHOP,
            "b.yaml:5: worker.schema.registry.url: expected embedded",
        ),
        (
            WORKER + "  task.restart.backoff.max.ms: 5\n" + SHOP,
            "b.yaml:1: worker: task.restart.backoff.initial.ms is greater",
        ),
    ],
)
def test_faults_of_the_whole(text: str, finding: str) -> None:
    (found,) = findings(text)
    assert found.startswith(finding)


def test_a_file_that_is_not_there_or_not_text_is_a_finding(tmp_path: Path) -> None:
    missing, binary = tmp_path / "none.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"worker: \xff\n")
    with pytest.raises(ConfigError) as raised:
        cdc.config.load([missing, binary, binary, tmp_path])
    assert [str(finding) for finding in raised.value.findings] == [
        f"{missing}: there is no such file",
        f"{binary}: is not UTF-8 text (byte 8). Save it as UTF-8",
        f"{binary}: is given twice on the command line. Name it once",
        f"{tmp_path}: cannot be read: Is a directory",
    ]


def test_the_files_of_connect_standalone_run_as_they_are() -> None:
    config = load(
        worker__properties="""\
# connect-standalone.properties
bootstrap.servers=localhost:9092
key.converter=io.example.PlainConverter
value.converter=io.example.PlainConverter
key.converter.encoding=utf-8
offset.storage.file.filename=/tmp/connect.offsets
plugin.path=/usr/share/java
""",
        source__properties="name=shop\nconnector.class=io.example.SleeperConnector\ntasks.max=1\n",
        put__json='{"name": "two", "connector.class": "Sleeper", "tasks.max": 1, "tombstones.on.delete": false}',
        post__json='{"name": "three", "config": {"connector.class": "SleeperConnector", "name": "three"}}',
    )
    assert [spec.name for spec in config.connectors] == ["shop", "two", "three"]
    assert [warning.key for warning in config.warnings] == ["worker.offset.storage.file.filename", "worker.plugin.path"]
    assert config.connectors[1].properties["tombstones.on.delete"] == "false"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ('{"name": "x", "config": {"connector.class": "sleeper"}, "conf": 1}', "c.json:1: conf: unknown key"),
        ('{"name": " ", "config": {"connector.class": "sleeper"}}', "c.json:1: name: the connector has no name"),
        ('{"connector.class": "sleeper"}', "c.json: name: the connector has no name. Add name"),
        (
            '{"name": "x", "config": {"connector.class": "sleeper", "name": "y"}}',
            "c.json:1: connectors.x.name: differs",
        ),
        (
            '{"name": "x",\n "initial_state": "PAUSED", "config": {"connector.class": "sleeper"}}',
            "c.json:2: initial_state: only RUNNING can be had with cdc run",
        ),
    ],
)
def test_faults_of_connects_json(text: str, finding: str) -> None:
    (found,) = findings(WORKER + SHOP, c__json=text)
    assert found.startswith(finding)


def test_worker_settings_may_come_from_several_files_but_each_once() -> None:
    assert findings(WORKER + SHOP, "worker:\n  group.id: x\n  bootstrap.servers: other:9092\n") == [
        "c.yaml:3: worker.bootstrap.servers: given twice, first at b.yaml:2. Remove one of the two"
    ]


def test_connectors_see_their_siblings() -> None:
    assert findings(
        WORKER
        + """\
connectors:
  one: {connector.class: sleeper, slot.name: s}
  two:
    connector.class: sleeper
    slot.name: s
"""
    ) == [
        "b.yaml:6: connectors.one.slot.name: the slot is that of two too. Name another",
        "b.yaml:9: connectors.two.slot.name: the slot is that of one too. Name another",
    ]


def test_converters_come_from_the_worker_unless_the_connector_has_its_own() -> None:
    config = load(
        WORKER
        + """\
  key.converter.encoding: worker
  value.converter.encoding: worker
  producer.linger.ms: 5
connectors:
  inherits: {connector.class: sleeper}
  owns:
    connector.class: sleeper
    key.converter: io.example.PlainConverter
    value.converter.encoding: own
    producer.override.linger.ms: 7
    producer.override.acks: all
"""
    )
    inherits, owns = config.connectors
    assert inherits.connector.config.key_converter == "plain"
    assert inherits.worker["key.converter.encoding"] == "worker"
    assert inherits.worker["producer.linger.ms"] == "5"
    assert owns.connector.config.key_converter == "io.example.PlainConverter"
    assert "key.converter.encoding" not in owns.worker
    assert owns.worker["value.converter.encoding"] == "own"
    assert (owns.worker["producer.linger.ms"], owns.worker["producer.acks"]) == ("7", "all")
    assert "producer.override.linger.ms" not in owns.properties
    assert cdc.config.converter_properties(owns.worker, is_key=False) == {
        "encoding": "own",
        "schema.registry.url": "embedded",
        "schema.registry.basic.auth.credentials.source": "URL",
    }


def test_the_registry_client_takes_confluents_names() -> None:
    given = "  schema.registry.bearer.auth.issuer.endpoint.url: http://idp\n  schema.registry.http.read.timeout.ms: 5\n"
    config = load(WORKER + given + SHOP)
    assert config.connectors[0].worker["schema.registry.http.read.timeout.ms"] == "5"
    assert findings(WORKER + "  schema.registry.basic.auth.userinfo: u:p\n  schema.registry.ssl.ca: x\n" + SHOP) == [
        "b.yaml:5: worker.schema.registry.basic.auth.userinfo: unknown setting. Did you mean basic.auth.user.info?",
        "b.yaml:6: worker.schema.registry.ssl.ca: unknown setting",
    ]


def test_a_plugin_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cdc_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cdc-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cdc.connectors]\nunloadable = cdc_broken_module:Nothing\nodd = pathlib:Path\n"
        "[cdc.converters]\nodd = pathlib:Path\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = WORKER + "connectors:\n  a: {connector.class: unloadable}\n  b: {connector.class: odd, key.converter: odd}\n"
    a, b = findings(text)
    assert a.startswith(
        "b.yaml:6: connectors.a.connector.class: the plugin unloadable (cdc_broken_module:Nothing, of cdc-broken) "
        "cannot be loaded: ModuleNotFoundError"
    )
    assert b.endswith("the plugin odd (pathlib:Path, of cdc-broken) is broken: it is no Connector")
    assert findings(WORKER + SHOP + "    key.converter: odd\n") == [
        "b.yaml:8: connectors.shop.key.converter: "
        "the plugin odd (pathlib:Path, of cdc-broken) is broken: it is no Converter"
    ]


def test_references_are_resolved_before_validation(tmp_path: Path) -> None:
    (tmp_path / "db.properties").write_text("port=5433\npassword = from\\ file\n")
    (tmp_path / "host").write_text("db.example\n")
    config = load(
        WORKER
        + SHOP
        + f"""\
    database.hostname: ${{directory:{tmp_path}:host}}
    database.port: ${{file:{tmp_path}/db.properties:port}}
    database.password: a-${{file:{tmp_path}/db.properties:password}}-${{env:SUFFIX:-none}}-${{env:EMPTY:-}}
    behaviour: outbox.${{routedByValue}}
""",
        environment={"SUFFIX": "s"},
    )
    (shop,) = config.connectors
    assert shop.properties["database.hostname"] == "db.example"
    assert shop.properties["database.port"] == "5433"
    assert shop.properties["database.password"] == "a-from file-s-"
    assert shop.properties["behaviour"] == "outbox.${routedByValue}"
    assert shop.shown["database.hostname"] == f"${{directory:{tmp_path}:host}}"


def test_what_a_reference_does_not_find_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "db.properties").write_text("password=x\n")
    assert findings(
        WORKER
        + SHOP
        + f"""\
    database.password: ${{env:SHOP_PASSWORD}}
    database.hostname: ${{file:{tmp_path}/none:host}}
    database.port: ${{file:{tmp_path}/db.properties:pasword}}
    slot.name: ${{directory:{tmp_path}:none}}
    snapshot.mode: ${{evn:MODE}}
    behaviour: ${{vault:x}}
    uri: ${{URI}}
    table.include.list: ${{file:{tmp_path}/db.properties}}
""",
    ) == [
        "b.yaml:8: connectors.shop.database.password: the environment variable SHOP_PASSWORD is not set. "
        "Set it, or write ${env:SHOP_PASSWORD:-default}",
        f"b.yaml:9: connectors.shop.database.hostname: there is no file {tmp_path}/none. "
        "Create it, or correct the path",
        f"b.yaml:10: connectors.shop.database.port: {tmp_path}/db.properties has no key pasword. "
        "Did you mean password?",
        f"b.yaml:11: connectors.shop.slot.name: there is no file {tmp_path}/none. Create it, or correct the path",
        "b.yaml:12: connectors.shop.snapshot.mode: unknown config provider ${evn:…}. Did you mean ${env:…}?",
        "b.yaml:13: connectors.shop.behaviour: unknown config provider ${vault:…}. Known are directory, env, file",
        "b.yaml:14: connectors.shop.uri: ${URI} names no provider. Write ${env:URI}",
        "b.yaml:15: connectors.shop.table.include.list: a file reference needs a path and a key. "
        "Write ${file:/path/to/file.properties:key}",
    ]


def test_connects_config_providers_may_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    worker = WORKER + (
        "  config.providers: secrets\n"
        "  config.providers.secrets.class: org.apache.kafka.common.config.provider.DirectoryConfigProvider\n"
    )
    config = load(worker + SHOP + f"    database.password: ${{secrets:{tmp_path}:secret}}\n")
    assert config.connectors[0].properties["database.password"] == "s3cret"
    assert findings(
        WORKER + "  config.providers: v\n  config.providers.v.class: x.Vault\n  config.providers.w.class: y\n" + SHOP
    ) == [
        "b.yaml:6: worker.config.providers.v.class: unknown config provider; known are "
        "org.apache.kafka.common.config.provider.EnvVarConfigProvider, "
        "org.apache.kafka.common.config.provider.FileConfigProvider, "
        "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
        "b.yaml:7: worker.config.providers.w.class: unknown key. "
        "Known is config.providers.w.class, for a w listed in config.providers",
    ]


def test_converters_of_single_values_are_refused_for_rows() -> None:
    string = "org.apache.kafka.connect.storage.StringConverter"
    with pytest.raises(ConfigError) as caught:
        load(WORKER + f"connectors:\n  shop: {{connector.class: sleeper, value.converter: {string}}}\n")
    assert [finding.key for finding in caught.value.findings] == ["connectors.shop.value.converter"]
    assert "cannot write rows" in str(caught.value)


def test_key_and_value_converters_have_properties_of_their_own() -> None:
    config = load(
        WORKER
        + """\
connectors:
  shop:
    connector.class: sleeper
    key.converter: org.apache.kafka.connect.json.JsonConverter
    key.converter.schemas.enable: false
    value.converter: json
    value.converter.decimal.format: numeric
"""
    )
    (spec,) = config.connectors
    assert converter_properties(spec.worker, is_key=True)["schemas.enable"] == "false"
    assert converter_properties(spec.worker, is_key=False)["decimal.format"] == "numeric"
    with pytest.raises(ConfigError, match=r"key\.converter\.decimal\.formats: .*Did you mean decimal\.format"):
        load(
            WORKER
            + "connectors:\n  shop: {connector.class: sleeper, key.converter: json, key.converter.decimal.formats: x}\n"
        )
