"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["Connector", "Files", "Output", "Source"]

Files = Annotated[
    list[Path],
    typer.Argument(
        help="Configuration: YAML with worker: and connectors:, or a worker's .properties and connectors' "
        ".properties or JSON.",
        metavar="FILE...",
        show_default=False,
    ),
]
Source = Annotated[str, typer.Option("--connector", help="Name of the source.", metavar="NAME", show_default=False)]
Connector = Annotated[
    str, typer.Option("--connector", help="Name of the connector.", metavar="NAME", show_default=False)
]
Output = Annotated[Literal["text", "json"], typer.Option(help="How to print the result.")]
