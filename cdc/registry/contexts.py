"""Subject names with a context: ``:.context:subject``, as Confluent's ``QualifiedSubject`` reads them. Pure.

A context is a name space of its own for subjects and ids; the default one is ``.`` and is not written.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DEFAULT_CONTEXT", "GLOBAL_CONTEXT", "context_key", "context_of", "is_valid", "normal", "qualify"]

DEFAULT_CONTEXT: Final = "."
GLOBAL_CONTEXT: Final = ":.__GLOBAL:"
"""The pseudo-subject for settings above all contexts."""


def _split(subject: str) -> tuple[str, str]:
    if not subject.startswith(":."):
        return DEFAULT_CONTEXT, subject
    context, _, name = subject[1:].partition(":")
    return context, name


def context_of(subject: str) -> str:
    """The context, ``.`` by default."""
    return _split(subject)[0]


def context_key(subject: str) -> str | None:
    """The pseudo-subject that holds the settings of the context; None for the default context."""
    context = context_of(subject)
    return None if context == DEFAULT_CONTEXT else f":{context}:"


def normal(subject: str) -> str:
    """The one spelling of a subject: ``:.:name`` is ``name``, ``:.context`` is ``:.context:``."""
    context, name = _split(subject)
    return name if context == DEFAULT_CONTEXT else f":{context}:{name}"


def qualify(reference: str, subject: str) -> str:
    """The subject that ``reference``, met in a schema of ``subject``, means: by default one of the same context."""
    key = context_key(subject)
    return normal(reference) if reference.startswith(":.") or key is None else key + reference


def is_valid(subject: str, *, setting: bool = False) -> bool:
    """Whether schemas may be registered under this name (or, with ``setting``, configs and modes be set)."""
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in subject):
        return False
    _, name = _split(subject)
    if name in ("__GLOBAL", "__EMPTY"):
        return False
    return setting or (name not in ("", "*") and context_key(subject) != GLOBAL_CONTEXT)
