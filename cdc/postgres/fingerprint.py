"""What of a table's catalog entries tells that its rows are not what the stream told. Pure (EXACTNESS.md H12).

Some statements change the rows of a table, or which rows are published, without a row in the WAL. Each leaves a trace
in the catalog, also on a quiet table; two fingerprints of a table show what happened between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Attribute", "Difference", "Fingerprint", "difference"]

_SAME_TEXT: Final = frozenset({25, 1043})
"""text and varchar: between them a change of type alone leaves every value and its form as they are."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A live row of ``pg_attribute``.

    ``version`` is the row's ``xmin``: every ALTER of the column makes another one, VACUUM FULL does not. ``missing``
    tells that rows older than the column read a default that was never written.
    """

    number: int
    name: str
    type_oid: int
    typmod: int
    version: int
    missing: bool
    generated: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A table at one moment.

    ``identity`` are the replica identity and the unique indexes, which decide on the record key; ``key`` the attribute
    numbers of the record key in its order. ``files`` are the ``relfilenode`` of the table and of every leaf partition,
    by OID; ``labels`` those of the enums its values are made of, by OID of the label. ``published`` names what makes it
    a member of the publication (empty: it is none), and with what filter.

    Four tell of what was undone before anybody looked: ``named`` is the version of the table's row type, which every
    change of its name or schema makes anew; ``joined`` are the versions of the ``pg_inherits`` rows above and below it,
    by OID of the partition; ``types`` those of the labels and attributes in ``labels`` and ``composites``, by the same
    OIDs. ``composites`` are the attributes of the composite types its values are made of.
    """

    oid: int
    persistence: str
    identity: str
    key: tuple[int, ...]
    columns: tuple[Attribute, ...]
    files: Mapping[int, int] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    all_tables: bool = False
    rooted: bool = False
    named: int = 0
    joined: Mapping[int, int] = field(default_factory=dict)
    composites: Mapping[int, str] = field(default_factory=dict)
    types: Mapping[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "oid": self.oid,
            "persistence": self.persistence,
            "identity": self.identity,
            "key": list(self.key),
            "columns": [
                [a.number, a.name, a.type_oid, a.typmod, a.version, int(a.missing), a.generated] for a in self.columns
            ],
            "files": {str(oid): node for oid, node in self.files.items()},
            "labels": {str(oid): label for oid, label in self.labels.items()},
            "published": list(self.published),
            "all_tables": self.all_tables,
            "rooted": self.rooted,
            "named": self.named,
            "joined": {str(oid): version for oid, version in self.joined.items()},
            "composites": {str(oid): attributes for oid, attributes in self.composites.items()},
            "types": {str(oid): version for oid, version in self.types.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fingerprint:
        """The fingerprint of a stored offset. `KeyError`, `ValueError` or `TypeError` when it is none."""
        return cls(
            oid=int(value["oid"]),
            persistence=str(value["persistence"]),
            identity=str(value["identity"]),
            key=tuple(int(number) for number in value["key"]),
            columns=tuple(
                Attribute(int(a[0]), str(a[1]), int(a[2]), int(a[3]), int(a[4]), bool(a[5]), str(a[6]))
                for a in value["columns"]
            ),
            files={int(oid): int(node) for oid, node in value["files"].items()},
            labels={int(oid): str(label) for oid, label in value["labels"].items()},
            published=tuple(str(part) for part in value["published"]),
            all_tables=bool(value["all_tables"]),
            # What an offset of an earlier version does not have counts as unknown, not as different.
            rooted=bool(value.get("rooted")),
            named=int(value.get("named", 0)),
            joined={int(oid): int(version) for oid, version in value.get("joined", {}).items()},
            composites={int(oid): str(attributes) for oid, attributes in value.get("composites", {}).items()},
            types={int(oid): str(version) for oid, version in value.get("types", {}).items()},
        )

    def has(self, names: Sequence[str]) -> bool:
        """Whether the table has these columns, in this order."""
        left = (attribute.name for attribute in self.columns)
        return all(name in left for name in names)

    def key_names(self) -> tuple[str, ...]:
        """The columns of the primary key, in its order."""
        names = {a.number: a.name for a in self.columns}
        return tuple(names[number] for number in self.key if number in names)


@dataclass(frozen=True, slots=True)
class Difference:
    """What happened between two fingerprints, as far as rows go.

    ``reasons`` say in words why rows may differ from what was told; empty when none can. With ``vanished``, rows may be
    gone of which no delete was told.
    """

    reasons: tuple[str, ...] = ()
    vanished: bool = False

    def __bool__(self) -> bool:
        return bool(self.reasons)


def difference(old: Fingerprint, new: Fingerprint) -> Difference:
    """Whether the rows may have changed from ``old`` to ``new`` without the stream telling it."""
    if old.oid != new.oid:
        return Difference(("the table was dropped and made anew",), vanished=True)
    reasons: list[str] = []
    vanished = False
    if old.published != new.published:
        reasons.append("its place in the publication changed")
        vanished = True
    if old.persistence != new.persistence:
        reasons.append("it was unlogged for a time")
        vanished = True
    if old.named and old.named != new.named:
        reasons.append("it had another name, schema or owner for a time")
        vanished = True
    changed, keys_changed = _columns(old, new, reasons)
    vanished |= keys_changed
    vanished |= _files(old, new, changed, reasons)
    renamed = sorted(
        f"{label!r} to {new.labels[oid]!r}" for oid, label in old.labels.items() if new.labels.get(oid, label) != label
    )
    if renamed:
        reasons.append(f"labels of its enums were renamed ({', '.join(renamed)})")
        vanished = True  # one of them may be part of a key
    if any(new.composites.get(oid, attributes) != attributes for oid, attributes in old.composites.items()):
        reasons.append("attributes of a composite type of its values changed")
        vanished = True
    elif not renamed and any(new.types.get(oid, version) != version for oid, version in old.types.items()):
        reasons.append("labels or attributes of types of its values had other names for a time")
        vanished = True
    return Difference(tuple(reasons), vanished)


def _columns(old: Fingerprint, new: Fingerprint, reasons: list[str]) -> tuple[set[int], bool]:
    """The numbers of columns that were altered; whether one of them is part of a key."""
    rewritten = any(new.files.get(oid, node) != node for oid, node in old.files.items())
    before = {a.number: a for a in old.columns}
    after = {a.number: a for a in new.columns}
    keys = {*old.key, *new.key}
    altered: set[int] = set()
    keys_changed = False
    for number in sorted(before.keys() - after.keys()):
        reasons.append(f"column {before[number].name} was dropped")
        altered.add(number)
    for number in sorted(after.keys() - before.keys()):
        column = after[number]
        altered.add(number)
        if column.missing or rewritten:
            reasons.append(f"column {column.name} was added with a value in every row")
        elif column.generated:
            reasons.append(f"the generated column {column.name} was added")
    for number in sorted(before.keys() & after.keys()):
        a, b = before[number], after[number]
        if a.version != b.version:
            altered.add(number)
        what = _altered(a, b, rewritten=rewritten)
        if what:
            reasons.append(what)
            keys_changed |= number in keys
    if old.key != new.key:
        reasons.append("its primary key changed")
        keys_changed = True
    return altered, keys_changed or bool(rewritten and altered & keys)


def _altered(a: Attribute, b: Attribute, *, rewritten: bool) -> str:
    if a.name != b.name:
        return f"column {a.name} was renamed to {b.name}"
    if a.type_oid != b.type_oid and (rewritten or not {a.type_oid, b.type_oid} <= _SAME_TEXT):
        return f"column {b.name} changed its type"
    if a.generated != b.generated:
        return f"column {b.name} changed between generated and ordinary"
    if rewritten and a.version != b.version:
        return f"the values of column {b.name} were rewritten"
    return ""


def _files(old: Fingerprint, new: Fingerprint, altered: set[int], reasons: list[str]) -> bool:
    """Partitions that came or went, and files that were rewritten; whether rows may be gone.

    A rewrite that altered no column is VACUUM FULL, CLUSTER or TRUNCATE: the rows stay, or the stream tells that they
    go. Not so where a table can be made unlogged although published (FOR ALL TABLES), and where a partition is told as
    its root: a TRUNCATE of the partition alone is not published then.
    """
    leaves = {oid for oid in old.files if oid != old.oid}, {oid for oid in new.files if oid != new.oid}
    attached, detached = leaves[1] - leaves[0], leaves[0] - leaves[1]
    if attached:
        reasons.append(_count(attached, "was", "were", "attached"))
    if detached:
        reasons.append(_count(detached, "was", "were", "detached or dropped"))
    rejoined = {oid for oid, version in old.joined.items() if new.joined.get(oid, version) != version}
    if rejoined:
        reasons.append(_count(rejoined, "was", "were", "detached and attached again"))
    emptied = {oid for oid in leaves[0] & leaves[1] if new.files[oid] != old.files[oid]} if new.rooted else set()
    if emptied:  # also where a column changed: what rewrote the partition may have been a TRUNCATE beside it
        reasons.append(_count(emptied, "was", "were", "rewritten, perhaps truncated alone, which is not published"))
    if rejoined or emptied:
        return True
    rewritten = any(new.files.get(oid, node) != node for oid, node in old.files.items())
    if rewritten and not altered and (old.all_tables or new.all_tables):
        reasons.append("its file was replaced, and in a publication FOR ALL TABLES it may have been unlogged meanwhile")
        return True
    return bool(detached)


def _count(things: set[int], one: str, more: str, what: str) -> str:
    return f"1 partition {one} {what}" if len(things) == 1 else f"{len(things)} partitions {more} {what}"
