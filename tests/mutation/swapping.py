"""Put a mutant in the place of loaded code: the functions get its code objects, no module is imported anew.

What is computed while a module is imported, such as the default of an argument or a field, cannot be put in place so.
"""

import ast
import gc
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType

__all__ = ["Code", "Swap", "functions", "swap_for"]

Code = tuple[str, int]
"""The qualified name of a function, and its first line."""
Swap = dict[Code, CodeType]
"""New code for functions of a module."""


def functions(module: ModuleType) -> dict[Code, list[FunctionType]]:
    """Return the functions that live and were made by the module's text, closures and decorated ones among them."""
    found: dict[Code, list[FunctionType]] = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__globals__ is module.__dict__:
            found.setdefault((one.__code__.co_qualname, one.__code__.co_firstlineno), []).append(one)
    return found


def swap_for(source: str, mutated: ast.Module) -> Swap | None:
    """Return the code that differs, by outermost function; None where what differs is not in a function.

    >>> text = "LIMIT = 1\\ndef f(a=2):\\n    return a < 3"
    >>> [list(swap_for(text, ast.parse(text.replace(*change))) or ()) for change in (("< 3", "< 4"), ("a=2", "a=3"))]
    [[('f', 2)], []]
    """
    pairs = list(_outermost(compile(source, "old", "exec"), compile(mutated, "new", "exec")))
    if any(name is None for name, _ in pairs):
        return None
    return {name: code for name, code in pairs if name is not None}


def _outermost(old: CodeType, new: CodeType) -> Iterator[tuple[Code | None, CodeType]]:
    """Yield each function outside of functions whose code differs; None for a difference outside of them all."""
    inside = [[one for one in code.co_consts if isinstance(one, CodeType)] for code in (old, new)]
    plain = [[one for one in code.co_consts if not isinstance(one, CodeType)] for code in (old, new)]
    if old.co_code != new.co_code or old.co_names != new.co_names or repr(plain[0]) != repr(plain[1]):
        yield None, new
        return
    for before, after in zip(*inside, strict=True):
        if before == after:
            continue
        if before.co_flags & _OPTIMIZED:
            yield (before.co_qualname, before.co_firstlineno), after
        else:  # a class's body
            yield from _outermost(before, after)


_OPTIMIZED = 1
"""The flag of a function's code; bodies of modules and classes lack it."""
