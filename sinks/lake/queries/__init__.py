"""Load the named queries in Athena's dialect: the .sql files here for any table, those of a folder for its contract.

The first line says what is asked. {table}, {key} and {time} are filled in; each ? is a parameter of the execution.
"""

from dataclasses import dataclass
from pathlib import Path

from headwater.contract import Contract

__all__ = ["NamedQuery", "named_queries"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class NamedQuery:
    """Hold a query in Athena's dialect, with its description as a comment before it."""

    name: str
    description: str
    sql: str


def named_queries(table: str, contract: Contract) -> dict[str, NamedQuery]:
    """Return what an analyst asks first of a pipeline's table, by name."""
    given = {"table": table, "key": contract.key, "time": contract.time}
    paths = sorted(_HERE.glob("*.sql")) + sorted((_HERE / contract.name).glob("*.sql"))
    found = {}
    for path in paths:
        sql = path.read_text().strip().format(**given)
        name = path.stem.replace("_", " ")
        found[name] = NamedQuery(name, sql.splitlines()[0].removeprefix("-- "), sql)
    return found
