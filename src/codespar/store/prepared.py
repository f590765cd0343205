"""Statements of the hot path: built and compiled once, and run on the driver's own cursor.

SQLAlchemy spends more time on each execution of a small statement than the database does. What is here is written with it like any other
statement, and differs only in how it is run: inside the transaction that the connection has begun already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import Executable


class Prepared:
    """A statement whose every value is a named bind parameter or a constant, or a function that makes it for a connection's dialect.

    Rows come back as plain tuples.
    """

    def __init__(self, statement: Executable | Callable[[Connection], Executable]) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def _on(self, connection: Connection) -> tuple[str, dict[str, Any]]:
        name = connection.dialect.name
        if name not in self._compiled:
            statement: Any = self._statement(connection) if callable(self._statement) else self._statement
            dialect: Any = sqlite.dialect(paramstyle="named") if name == "sqlite" else connection.dialect
            made = statement.compile(dialect=dialect)
            constants = {key: bind.value for bind, key in made.bind_names.items() if not bind.required}
            self._compiled[name] = (str(made), constants)
        return self._compiled[name]

    def run(self, connection: Connection, **given: Any) -> Any:
        """Execute it and return the driver's cursor."""
        sql, constants = self._on(connection)
        driver: Any = connection.connection.dbapi_connection
        return driver.execute(sql, constants | given)

    def first(self, connection: Connection, **given: Any) -> tuple[Any, ...] | None:
        """The first row, or None."""
        return self.run(connection, **given).fetchone()

    def all(self, connection: Connection, **given: Any) -> list[tuple[Any, ...]]:
        return self.run(connection, **given).fetchall()
