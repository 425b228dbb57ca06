"""How much the fault tests run: see ``scripts/faults``."""

from __future__ import annotations

import os
from typing import Final

SECONDS: Final = int(os.environ.get("FAULTS_SECONDS", "20"))
SCALE: Final = int(os.environ.get("FAULTS_SCALE", "1"))
ROWS: Final = int(os.environ.get("FAULTS_ROWS", "2000000"))
PARTITIONS: Final = 3
