"""The configuration of a worker and its connectors: files in, typed models or all their faults out.

::

    config = cdc.config.load(["bridge.yaml"])

Formats: YAML with ``worker:`` and ``connectors:``, Connect's JSON and ``.properties`` (`cdc.config.documents`).
Secrets: `cdc.config.secrets`. References to values kept elsewhere: `cdc.config.interpolate`.
"""

from cdc.config.model import Config, ConnectorSpec, converter_properties
from cdc.config.plugins import find_connector, find_converter, load_converter
from cdc.config.secrets import Secrets
from cdc.config.transforms import Step, load_transforms
from cdc.config.validate import load, loads
from cdc.config.worker import EMBEDDED, WorkerConfig

__all__ = [
    "EMBEDDED",
    "Config",
    "ConnectorSpec",
    "Secrets",
    "Step",
    "WorkerConfig",
    "converter_properties",
    "find_connector",
    "find_converter",
    "load",
    "load_converter",
    "load_transforms",
    "loads",
]
