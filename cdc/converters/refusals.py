"""What a table's new value schema being refused means, where it is not to be forced."""

from __future__ import annotations

from cdc.errors import SchemaRefused
from cdc.registry.errors import IncompatibleSchema

__all__ = ["refused_schema"]


def refused_schema(subject: str, refusal: IncompatibleSchema) -> SchemaRefused:
    """The error for a value schema of ``subject`` that must not be registered against the subject's compatibility."""
    reasons = "; ".join(refusal.messages) or str(refusal)
    return SchemaRefused(
        f"the registry refuses the new value schema of {subject} as incompatible ({reasons}), and "
        "schema.incompatible.handling.mode is not evolve. Remedy: change the table back; or set the subject's "
        "compatibility, or the mode to evolve, and restart the connector. The table is then read again"
    )
