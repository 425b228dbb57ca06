"""The record key of a table as of a Relation message, which may be older than the catalog. Pure.

The message flags the columns of the replica identity: with REPLICA IDENTITY DEFAULT these are the primary key, if not
in its order; with FULL they are all columns, and tell nothing. What is known besides are the table's fingerprint as of
the last look that its rows agree with, and the catalog of now. The message is of one of the two, or of a time between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.errors import TableError
from cdc.postgres.catalog import TableInfo
from cdc.postgres.fingerprint import Fingerprint
from cdc.postgres.pgoutput import Relation

__all__ = ["KnownKey", "key_of", "known_keys"]


@dataclass(frozen=True, slots=True)
class KnownKey:
    """Columns (name, type) and record key of a table at one moment."""

    columns: tuple[tuple[str, int], ...]
    key: tuple[str, ...]


def known_keys(then: Fingerprint | None, now: TableInfo | None) -> list[KnownKey]:
    """The moments that are known, the earlier one first."""
    known = []
    if then is not None:
        columns = tuple((a.name, a.type_oid) for a in then.columns if not a.generated)
        known.append(KnownKey(columns, then.key_names()))
    if now is not None:
        known.append(KnownKey(tuple((c.name, c.type_oid) for c in now.columns), now.key))
    return known


def key_of(relation: Relation, known: Sequence[KnownKey]) -> tuple[str, ...]:
    """The columns of the record key, in its order; empty for a table without key.

    `TableError` when the message does not tell: the table was altered more than once since the last look.
    """
    flagged = tuple(column.name for column in relation.columns if column.is_key)
    if relation.replica_identity == "d" and flagged:
        return next((moment.key for moment in known if set(moment.key) == set(flagged)), flagged)
    told = {column.name: column.type_oid for column in relation.columns}
    columns = tuple(told.items())
    same = [moment.key for moment in known if moment.columns == columns]
    keys = same if len(set(same)) == 1 else []
    if not same:
        # A version between, or one that leaves columns out: what the key was before and after, it was meanwhile.
        types = {(name, type_oid) for moment in known for name, type_oid in moment.columns}
        keys = [moment.key for moment in known]
        if len(set(keys)) != 1 or not all(name in told and (name, told[name]) in types for name in keys[0]):
            keys = []
    if not keys:
        raise TableError(
            f"the record key of {relation.schema}.{relation.name} at the time of the change is not known: the table "
            f"has REPLICA IDENTITY {_IDENTITY.get(relation.replica_identity, relation.replica_identity)}, and was "
            "altered more than once since its catalog entries were looked at. It is read again; to have such changes "
            f'told, ALTER TABLE "{relation.schema}"."{relation.name}" REPLICA IDENTITY DEFAULT'
        )
    return keys[0]


_IDENTITY = {"f": "FULL", "i": "USING INDEX", "n": "NOTHING"}
