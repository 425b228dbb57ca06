"""Connections to Postgres: pinned settings, errors by what can be done about them.

Every connection pins the settings that change how values are printed, in its startup packet, where they outrank what
``ALTER ROLE`` and ``ALTER DATABASE`` say (docs/traps.md, T21). So a value read by COPY and the same value
decoded from the WAL have the same text.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from cdc.errors import CdcError, FatalError, RetriableError

__all__ = ["application_name", "connect", "translate"]

PINNED: Final = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "client_min_messages": "warning",
    # A policy that hides rows from this role must be an error: the stream tells them all, a SELECT would not.
    "row_security": "off",
    # The role's own limits are for applications, not for a stream that lives for months.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
CONNECT_TIMEOUT_S: Final = 10

Connection = psycopg.Connection[tuple[Any, ...]]

_PERMANENT_STATES: Final = {
    "28": "check database.user, database.password and pg_hba.conf",
    "3D": "create the database or correct database.dbname",
    "42501": "grant the privilege to the role",
}


_AUTHORITY: Final = "set database.sslrootcert to the file with the certificate of the authority that signed it"
_OWN_CERTIFICATE: Final = "set database.sslcert and database.sslkey to a certificate that the server trusts"
_REFUSALS: Final = (
    ("password authentication failed", _PERMANENT_STATES["28"]),
    ("no password supplied", "set database.password"),
    (
        "no pg_hba.conf entry",
        "add an entry for this host, role and database to pg_hba.conf (hostssl fits TLS only)",
    ),
    ("certificate verify failed", _AUTHORITY),
    ("root certificate file", _AUTHORITY),
    ("could not read root certificate", _AUTHORITY),
    ("does not match host name", "name the server in database.hostname as its certificate does"),
    ("server does not support ssl", "set ssl = on in postgresql.conf, or another database.sslmode"),
    ("certificate authentication failed", "use a certificate whose CN is the role, or map it in pg_ident.conf"),
    ("requires a valid client certificate", _OWN_CERTIFICATE),
    ("certificate required", _OWN_CERTIFICATE),
    ("unknown ca", _OWN_CERTIFICATE),
    ("bad certificate", _OWN_CERTIFICATE),
    ("certificate unknown", _OWN_CERTIFICATE),
    ("certificate file", "correct database.sslcert"),
    ("has group or world access", "chmod 0600 the file in database.sslkey"),
    ("private key file", "correct database.sslkey, and database.sslpassword if the key has a password"),
    ("role", _PERMANENT_STATES["28"]),
    ("must be superuser or replication role", "ALTER ROLE … REPLICATION"),
    ("permission denied to start wal sender", "ALTER ROLE … REPLICATION"),
    ("database", _PERMANENT_STATES["3D"]),
)
"""What libpq and the server say of a login or handshake that waiting does not mend, and the remedy; the first fits."""


def application_name(connector: str, worker: str) -> str:
    """The name our sessions carry in ``pg_stat_activity``, by which a remnant of ours is told from a stranger."""
    return f"cdc/{connector}/{worker}"[:63]


def connect(conninfo: dict[str, str], name: str, *, replication: bool = False) -> Connection:
    """A connection in autocommit mode with the pinned settings.

    Raises `RetriableError` when the server cannot be reached or does not accept connections yet, `FatalError`
    when it refuses this role, password or database.
    """
    options = " ".join(f"-c {key}={value}" for key, value in PINNED.items())
    parameters: dict[str, Any] = {
        **conninfo,
        "application_name": name,
        "client_encoding": "UTF8",
        "options": options,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        # Without it, data that is on its way to a host that is gone keeps the connection for a quarter of an hour.
        "tcp_user_timeout": 60_000,
    }
    if replication:
        parameters["replication"] = "database"
        parameters["prepare_threshold"] = None  # a walsender knows no prepared statements
    try:
        return psycopg.connect(**parameters, autocommit=True)
    except psycopg.Error as error:
        place = f"{conninfo.get('host')}:{conninfo.get('port')}/{conninfo.get('dbname')}"
        raise translate(error, f"connecting to Postgres at {place} as {conninfo.get('user')}") from None


def translate(error: psycopg.Error, doing: str) -> CdcError:
    """The error of this package for what psycopg raised while ``doing`` something."""
    state = error.sqlstate or ""
    text = " ".join(str(error).split())
    if not state:
        # libpq reports refused logins at connect without a SQLSTATE on the exception.
        lowered = text.lower()
        for sign, remedy in _REFUSALS:
            wanted = "does not exist" if sign in {"role", "database"} else ""
            if f'{sign} "' in lowered and wanted and wanted in lowered:
                return FatalError(f"{doing}: {text}. Remedy: {remedy}")
            if not wanted and sign in lowered:
                return FatalError(f"{doing}: {text}. Remedy: {remedy}")
        return RetriableError(f"{doing}: {text}")
    known = _PERMANENT_STATES.get(state) or _PERMANENT_STATES.get(state[:2])
    if known:
        return FatalError(f"{doing}: {text}. Remedy: {known}")
    if state[:2] in {"08", "57", "53", "40"} or state in {"55006", "55P03"}:
        return RetriableError(f"{doing}: {text}")
    return FatalError(f"{doing}: {text} (SQLSTATE {state})")
