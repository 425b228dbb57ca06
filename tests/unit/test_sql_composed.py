"""SQL is never built by formatting values into text: statements are literals, or psycopg's composition of literals.

Looks at every call of ``execute``, ``executemany``, ``copy`` and ``sql.SQL`` in the package: its first argument must
not be an f-string with values, a ``%`` or ``+`` of anything but literals, ``str.format`` or ``str.join``. Names are
followed to what the module binds them to.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLS = {"execute", "executemany", "copy", "SQL", "_SQL"}
ALLOWED = {
    # SQLite's own files of keys: numbers of this program's, and question marks.
    ("cdc/kafka/scan.py", "pragma cache_size"),
    ("cdc/runtime/rebuild/last.py", "pragma cache_size"),
    ("cdc/runtime/rebuild/last.py", "query"),
}


def statements(tree: ast.AST) -> Iterator[ast.expr]:
    """The first arguments of calls that take SQL."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in CALLS:
            yield node.args[0]


def built(expression: ast.expr, bound: dict[str, list[ast.expr]], seen: frozenset[str] = frozenset()) -> bool:
    """Whether an expression puts values into the text of a statement."""
    if isinstance(expression, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in expression.values)
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Mod | ast.Add):
        if isinstance(expression.op, ast.Mod):
            return isinstance(expression.left, ast.Constant | ast.JoinedStr)
        return built(expression.left, bound, seen) or built(expression.right, bound, seen)
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Attribute):
        on_text = isinstance(expression.func.value, ast.Constant | ast.JoinedStr)
        if expression.func.attr in {"format", "join"} and on_text:
            return True
        return expression.func.attr in {"encode", "strip"} and built(expression.func.value, bound, seen)
    if isinstance(expression, ast.IfExp):
        return built(expression.body, bound, seen) or built(expression.orelse, bound, seen)
    if isinstance(expression, ast.Name) and expression.id not in seen:
        return any(built(value, bound, seen | {expression.id}) for value in bound.get(expression.id, ()))
    return False


def bindings(tree: ast.AST) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name) and node.value:
            found.setdefault(node.target.id, []).append(node.value)
    return found


def faults(source: str) -> list[str]:
    """The statements of a module that are built by formatting."""
    tree = ast.parse(source)
    bound = bindings(tree)
    return [ast.unparse(argument) for argument in statements(tree) if built(argument, bound)]


def test_no_statement_is_built_by_formatting() -> None:
    found = []
    for path in sorted((ROOT / "cdc").rglob("*.py")):
        place = str(path.relative_to(ROOT))
        for text in faults(path.read_text(encoding="utf-8")):
            if not any(place == allowed and said in text for allowed, said in ALLOWED):
                found.append(f"{place}: {text}")
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "c.execute(f'select {x}')",
        "c.execute('select ' + f'{x}')",
        "c.execute('select %s' % x)",
        "c.execute('select {}'.format(x))",
        "q = f'drop table {t}'\nc.execute(q.encode())",
        "c.execute(sql.SQL(f'drop table {t}'))",
        "c.copy('copy ' + ','.join(x))",
    ],
)
def test_the_test_finds_what_it_looks_for(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    ["c.execute('select %s', [x])", "c.execute(sql.SQL('drop table {}').format(sql.Identifier(t)))", "c.execute(_Q)"],
)
def test_composition_and_parameters_are_no_faults(source: str) -> None:
    assert faults(source) == []
