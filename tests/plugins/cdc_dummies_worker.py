"""A worker in the foreground whose tasks are the dummies: ``python -m cdc_dummies_worker STATUS_FILE FILE...``."""

from __future__ import annotations

import sys
from pathlib import Path

from cdc.config import load
from cdc.observe.logging import configure_logging
from cdc.runtime.standalone import run

if __name__ == "__main__":
    config = load(sys.argv[2:])
    configure_logging("DEBUG", "json", config.secrets.redact)
    command = (sys.executable, "-m", "cdc_dummies")
    sys.exit(run(config, status_file=Path(sys.argv[1]), log_level="DEBUG", command=command))
