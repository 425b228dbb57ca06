"""The function library that every primary has: the guard of rows, and of what is kept about them.

The library is called by a digest of its text, so that two versions of this program can write to one cluster at once and
each finds its own. Functions are persisted and replicated like data.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from cdc.mirror.fold import DELETE, Op
from cdc.mirror.mending import Change
from cdc.redis.connection import Argument, pack

__all__ = ["APPLIED", "IN_PART", "LIBRARY", "MENDED", "OLDER", "advance", "change", "mend", "remove"]

OLDER: Final = 0
"""Outcome of a change: the row, or the fence of one that is gone, has the same version or a newer one."""
APPLIED: Final = 1
IN_PART: Final = 2
"""Outcome of a change of some columns: there is no such row, and half of one would pass for the whole."""
MENDED: Final = 1

_BODY: Final = """
local FIELD = '__cdc:version'

-- Whether a change of this version is to be made where the other one is held: a later one of the same source, or any
-- of another source. Texts of one width, compared as texts.
local function later(version, held)
  if not held then return true end
  local mine, theirs = string.find(version, ' ', 1, true), string.find(held, ' ', 1, true)
  if not theirs or string.sub(version, mine) ~= string.sub(held, theirs) then return true end
  return string.sub(version, 1, mine - 1) > string.sub(held, 1, theirs - 1)
end

-- A command with many arguments, some at a time: Lua's stack ends at 8000.
local function each(command, key, list, first, last)
  for from = first, last, 2000 do
    redis.call(command, key, unpack(list, from, math.min(from + 1999, last)))
  end
end

-- KEYS: row, fence. ARGV: verb of cdc.mirror.fold, version, seconds to live or '', number of the last argument of
-- fields (name, value, name, value, ...), the fields; then the names of fields to remove.
local function put(keys, args)
  local row, fence, verb, version = keys[1], keys[2], args[1], args[2]
  local held, fenced = redis.call('HGET', row, FIELD), false
  if not held then
    fenced = redis.call('GET', fence)
    held = fenced
  end
  if not later(version, held) then return 0 end
  if verb == '1' and redis.call('EXISTS', row) == 0 then return 2 end
  if verb == '3' then redis.call('DEL', row) end
  local last = tonumber(args[4])
  local first = math.min(last, 2004)
  redis.call('HSET', row, FIELD, version, unpack(args, 5, first))
  each('HSET', row, args, first + 1, last)
  if verb ~= '3' then each('HDEL', row, args, last + 1, #args) end
  if args[3] ~= '' then redis.call('EXPIRE', row, args[3]) end
  if fenced then redis.call('DEL', fence) end
  return 1
end

-- KEYS: row, fence. ARGV: version, milliseconds that the fence lives, '1' to leave alone what is not there.
local function remove(keys, args)
  local row, fence, version = keys[1], keys[2], args[1]
  local held = redis.call('HGET', row, FIELD)
  if not held then
    if args[3] == '1' and redis.call('EXISTS', row) == 0 then return 0 end
    held = redis.call('GET', fence)
  end
  if not later(version, held) then return 0 end
  redis.call('UNLINK', row)
  redis.call('SET', fence, version, 'PX', args[2])
  return 1
end

-- KEYS: row, fence. ARGV: versions of the row and of the fence that they must still have ('' for none), the row's new
-- one ('' to remove it), seconds to live or '', milliseconds that a fence lives, number of the last argument of fields,
-- the fields; then the names of fields to remove.
local function mend(keys, args)
  local row, fence, version = keys[1], keys[2], args[3]
  if (redis.call('HGET', row, FIELD) or '') ~= args[1] or (redis.call('GET', fence) or '') ~= args[2] then return 0 end
  if version == '' then
    redis.call('UNLINK', row)
    if args[1] ~= '' then redis.call('SET', fence, args[1], 'PX', args[5]) end
    return 1
  end
  local last = tonumber(args[6])
  if version ~= '-' then redis.call('HSET', row, FIELD, version) end
  each('HSET', row, args, 7, last)
  each('HDEL', row, args, last + 1, #args)
  if args[4] ~= '' then redis.call('EXPIRE', row, args[4]) end
  if args[2] ~= '' then redis.call('DEL', fence) end
  return 1
end

-- KEYS: a hash. ARGV: field, value expected ('' for none), new value; the same again. All or nothing.
local function advance(keys, args)
  for at = 1, #args, 3 do
    if (redis.call('HGET', keys[1], args[at]) or '') ~= args[at + 1] then return 0 end
  end
  for at = 1, #args, 3 do
    redis.call('HSET', keys[1], args[at], args[at + 2])
  end
  return 1
end
"""
_FUNCTIONS: Final = ("put", "remove", "mend", "advance")


def _library() -> tuple[str, dict[str, bytes]]:
    """The text of the library, and what its functions are called."""
    digest = blake2b(_BODY.encode(), digest_size=4).hexdigest()
    names = {name: f"cdc_{digest}_{name}" for name in _FUNCTIONS}
    registered = "".join(f"redis.register_function('{full}', {name})\n" for name, full in names.items())
    return f"#!lua name=cdc_{digest}\n{_BODY}{registered}", {name: full.encode() for name, full in names.items()}


LIBRARY, _NAMES = _library()
"""For FUNCTION LOAD, on every primary."""
_PUT: Final = _NAMES["put"]
_REMOVE: Final = _NAMES["remove"]
_MEND: Final = _NAMES["mend"]
_ADVANCE: Final = _NAMES["advance"]
_AS_IT_IS: Final = b"-"
"""For the version of a row that gets none: nobody knows of which record it is."""


def change(key: bytes, fence: bytes, op: Op, version: bytes, ttl: Argument, fence_ttl: int) -> bytes:
    """The packed call that makes one change, unless the row has this version or a newer one. Answers the outcome.

    ``ttl`` is the row's in seconds, or empty; ``fence_ttl`` how many milliseconds a delete is remembered.
    """
    verb, fields, absent, _, _ = op
    if verb == DELETE:
        return pack((b"FCALL", _REMOVE, 2, key, fence, version, fence_ttl, b""))
    return pack((b"FCALL", _PUT, 2, key, fence, verb, version, ttl, 4 + len(fields), *fields, *absent))


def remove(key: bytes, fence: bytes, version: bytes, fence_ttl: int) -> bytes:
    """The packed call that removes a row that is there and older than ``version``."""
    return pack((b"FCALL", _REMOVE, 2, key, fence, version, fence_ttl, b"1"))


def mend(
    change: Change, fence: bytes, seen: bytes, fenced: bytes, version: bytes, ttl: Argument, fence_ttl: int
) -> bytes:
    """The packed call that makes a row what it must be, if its version and its fence are those that were seen; else
    nothing is done. Answers `MENDED` or 0."""
    written: Argument = b"" if change.delete else version or _AS_IT_IS
    fields = change.set
    head = (b"FCALL", _MEND, 2, change.key, fence, seen, fenced, written, ttl, fence_ttl, 6 + len(fields))
    return pack((*head, *fields, *change.remove))


def advance(key: bytes, changes: Sequence[Argument]) -> bytes:
    """The packed call that sets fields of a hash if they are as expected: field, expected, new, field, ... Answers 1 or
    0."""
    return pack((b"FCALL", _ADVANCE, 1, key, *changes))
