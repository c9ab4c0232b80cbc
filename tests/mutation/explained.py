"""Name the mutants that no test can kill, each with the reason: they change nothing that anybody can see."""

__all__ = ["EXPLAINED"]

EXPLAINED: dict[str, str] = {}
