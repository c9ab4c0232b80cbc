"""Read the text of expressions: a strict subset of SQL, into nodes that say where in the text they begin. Pure.

Own work rather than a library's: what a text means is part of a pipeline's definition and must not change with a
library's version, an error has to name its place, and a processor starts without loading a database.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache

from headwater.errors import UsageError

__all__ = ["Literal", "Node", "columns_of", "failure", "parse_condition", "parse_projections", "read_by"]

Literal = bool | int | float | str | datetime | date | None
MOST_TEXT = 10_000
"""Characters of a text."""
MOST_DEPTH = 100
"""Nodes within each other; so `a = 1 or a = 2 …` has at most so many terms, and `a in (1, 2, …)` any number."""
_MOST_NESTED = 40
_TOKEN = re.compile(
    r"""\s*(?:(?P<refused>--|/\*|;)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?!\w))
    |(?P<string>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")+")|(?P<name>[^\W\d]\w*)
    |(?P<sign><>|!=|<=|>=|\|\||[-+*/%<>=(),])|(?P<end>\Z))""",
    re.VERBOSE,
)
_RESERVED = frozenset(
    {"and", "as", "between", "case", "cast", "distinct", "else", "end", "false", "from", "in", "is", "like", "not"}
    | {"null", "or", "then", "true", "when"}
)
_COMPARISONS = ("=", "<>", "!=", "<", "<=", ">", ">=")
_LONG_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class Node:
    """Hold a part of an expression: `kind` is literal, column, call, cast or case, `at` where it begins in the text.

    `name` is the column, the function or operator, or the type of a cast; a literal has a `value`.
    """

    kind: str
    at: int
    name: str = ""
    args: tuple["Node", ...] = ()
    value: Literal = None
    depth: int = field(default=1, compare=False)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def failure(text: str, at: int, why: str) -> UsageError:
    """Return the error of an expression, with its place and what is there."""
    near = text[at : at + 20].split("\n")[0].strip()
    place = f"at character {at + 1}, {near!r}" if near else "at its end"
    shown = text if len(text) <= 200 else text[:200] + "…"
    return UsageError(f"expression {shown!r}, {place}: {why}")


def parse_condition(text: str) -> Node:
    """Return the node of one expression. Raise UsageError with the place of what cannot be read.

    >>> parse_condition("value > 30").name
    '>'
    """
    parser = _Parser(text)
    node = parser.expression()
    if parser.next_is("as"):
        raise parser.failure("a condition has no name")
    parser.end()
    return node


def parse_projections(text: str) -> list[tuple[str, Node]]:
    """Return the name and node of each `expression as name`, which commas divide. Raise UsageError like the above.

    >>> [name for name, _ in parse_projections("value * 1.8 + 32 as value_f, upper(metric) as shout")]
    ['value_f', 'shout']
    """
    parser = _Parser(text)
    found = []
    while True:
        node = parser.expression()
        parser.expect("as", "each expression has a name: value * 2 as doubled")
        found.append((parser.column_name(), node))
        if not parser.take(","):
            parser.end()
            return found


@lru_cache(maxsize=512)
def columns_of(text: str) -> tuple[str, ...]:
    """Return the columns that a condition reads, in order of their names. Raise UsageError when it cannot be read.

    >>> columns_of("value > 30 and metric = 'x'")
    ('metric', 'value')
    """
    return read_by(parse_condition(text))


def read_by(node: Node) -> tuple[str, ...]:
    """Return the columns that a node reads, in order of their names."""
    own = {node.name} if node.kind == "column" else set()
    return tuple(sorted(own.union(*(read_by(one) for one in node.args))))


def _tokens(text: str) -> Iterator[_Token]:
    if len(text) > MOST_TEXT:
        raise UsageError(f"an expression has at most {MOST_TEXT:,} characters, not {len(text):,}")
    at = 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup in (None, "refused"):
            at += len(text[at:]) - len(text[at:].lstrip())
            why = "neither comments nor several statements are taken" if match else "this cannot be read"
            raise failure(text, at, why)
        kind = str(match.lastgroup)
        found = match[kind]
        yield _Token(kind, found.lower() if kind == "name" and found.lower() in _RESERVED else found, match.start(kind))
        if kind == "end":
            return
        at = match.end()


class _Parser:
    """Read an expression from left to right.

    The precedence is SQL's: `or`, `and`, `not`, `is`, comparisons, `between`, `in` and `like`, `||`, `+` and `-`, `*`,
    `/` and `%`, signs.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = self._nested = 0

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def failure(self, why: str) -> UsageError:
        """Return an error at what comes next."""
        return failure(self._text, self._next.at, why)

    def next_is(self, *signs: str) -> bool:
        """Return True when one of these signs or words comes next."""
        return self._next.text in signs and self._next.kind in ("sign", "name")

    def take(self, *signs: str) -> _Token | None:
        """Return the next token and go on, when it is one of these signs or words."""
        if not self.next_is(*signs):
            return None
        self._at += 1
        return self._tokens[self._at - 1]

    def expect(self, sign: str, why: str) -> None:
        """Go on behind this sign or word; raise UsageError when something else comes."""
        if not self.take(sign):
            raise self.failure(why)

    def end(self) -> None:
        """Raise UsageError unless all is read."""
        if self._next.kind != "end":
            raise self.failure("nothing was expected here: is an operator missing before it?")

    def column_name(self) -> str:
        """Return the name that comes next."""
        token = self._next
        if token.kind not in ("name", "quoted") or token.text in _RESERVED:
            raise self.failure("the name of a column was expected here")
        self._at += 1
        return token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text

    def _node(self, kind: str, at: int, name: str = "", args: tuple[Node, ...] = (), value: Literal = None) -> Node:
        depth = 1 + max((one.depth for one in args), default=0)
        if depth > MOST_DEPTH:
            why = f"more than {MOST_DEPTH} parts within each other; a list of values goes into `in (…)`"
            raise failure(self._text, at, why)
        return Node(kind, at, name, args, value, depth)

    def _call(self, token: _Token, *args: Node, name: str = "") -> Node:
        return self._node("call", token.at, name or token.text, args)

    def expression(self) -> Node:
        """Read an expression."""
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise self.failure(f"more than {_MOST_NESTED} brackets and signs within each other")
        found = self._left(lambda: self._left(self._negated, "and"), "or")
        self._nested -= 1
        return found

    def _left(self, inner: Callable[[], Node], *signs: str) -> Node:
        """Read terms that associate to the left."""
        node = inner()
        while token := self.take(*signs):
            node = self._call(token, node, inner())
        return node

    def _prefixed(self, token: _Token, inner: Callable[[], Node]) -> Node:
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise self.failure(f"more than {_MOST_NESTED} brackets and signs within each other")
        node = self._call(token, inner(), name="negative" if token.text == "-" else token.text)
        self._nested -= 1
        return node

    def _negated(self) -> Node:
        token = self.take("not")
        return self._prefixed(token, self._negated) if token else self._is()

    def _is(self) -> Node:
        node = self._compared()
        token = self.take("is")
        if token is None:
            return node
        negated = self.take("not")
        if self.take("null"):
            node = self._call(token, node, name="is null")
        elif self.take("distinct"):
            self.expect("from", "`is distinct from` was expected")
            node = self._call(token, node, self._compared(), name="is distinct from")
        else:
            raise self.failure("after `is` comes null, not null, distinct from or not distinct from")
        return self._call(token, node, name="not") if negated else node

    def _compared(self) -> Node:
        node = self._ranged()
        token = self.take(*_COMPARISONS)
        if token is None:
            return node
        node = self._call(token, node, self._ranged(), name="<>" if token.text == "!=" else token.text)
        if self.next_is(*_COMPARISONS):
            raise self.failure("comparisons do not follow each other: write `a < b and b < c`")
        return node

    def _ranged(self) -> Node:
        node = self._joined()
        before, negated = self._at, self.take("not")
        token = self.take("between", "in", "like")
        if token is None:
            self._at = before
            return node
        if token.text == "between":
            low = self._joined()
            self.expect("and", "between has two bounds: `a between 1 and 2`")
            bounds = self._call(token, node, low, name=">="), self._call(token, node, self._joined(), name="<=")
            node = self._call(token, *bounds, name="and")
        elif token.text == "like":
            node = self._call(token, node, self._joined())
        else:
            self.expect("(", "after `in` comes a list in brackets: `a in (1, 2)`")
            node = self._call(token, node, *self._list())
        return self._call(negated, node) if negated else node

    def _list(self) -> list[Node]:
        """Read terms up to the closing bracket; there is at least one."""
        found = [self.expression()]
        while self.take(","):
            found.append(self.expression())
        self.expect(")", "a comma or a closing bracket was expected here")
        return found

    def _joined(self) -> Node:
        return self._left(lambda: self._left(lambda: self._left(self._signed, "*", "/", "%"), "+", "-"), "||")

    def _signed(self) -> Node:
        token = self.take("-")
        return self._prefixed(token, self._signed) if token else self._primary()

    def _primary(self) -> Node:
        token = self._next
        if self.take("("):
            node = self.expression()
            self.expect(")", "a closing bracket was expected here")
            return node
        if token.kind in ("number", "string"):
            self._at += 1
            return self._node(
                "literal", token.at, value=self._number(token) if token.kind == "number" else _text(token)
            )
        if word := self.take("null", "true", "false"):
            return self._node("literal", token.at, value={"null": None, "true": True, "false": False}[word.text])
        if self.take("case"):
            return self._case(token)
        if self.take("cast"):
            return self._cast(token)
        following = self._tokens[self._at + 1] if token.kind == "name" else token
        if following.kind == "string" and token.text.lower() in ("timestamp", "date"):
            self._at += 2
            return self._node("literal", token.at, value=self._moment(token.text.lower(), following))
        if token.kind == "name" and following.text == "(" and token.text not in _RESERVED:
            self._at += 2
            args = () if self.take(")") else tuple(self._list())
            return self._call(token, *args, name=token.text.lower() + "()")
        if token.kind == "end":
            raise self.failure("a value was expected here")
        return self._node("column", token.at, self.column_name())

    def _case(self, token: _Token) -> Node:
        subject = None if self.next_is("when") else self.expression()
        args: list[Node] = []
        while when := self.take("when"):
            condition = self.expression()
            args.append(condition if subject is None else self._call(when, subject, condition, name="="))
            self.expect("then", "`then` was expected here")
            args.append(self.expression())
        if not args:
            raise self.failure("`when` was expected here")
        args.append(self.expression() if self.take("else") else self._node("literal", token.at))
        self.expect("end", "`when`, `else` or `end` was expected here")
        return self._node("case", token.at, args=tuple(args))

    def _cast(self, token: _Token) -> Node:
        self.expect("(", "cast is written `cast(a as double)`")
        node = self.expression()
        self.expect("as", "cast is written `cast(a as double)`")
        kind = self.column_name()
        self.expect(")", "a closing bracket was expected here")
        return self._node("cast", token.at, kind.lower(), (node,))

    def _number(self, token: _Token) -> Literal:
        if token.text.isdigit():
            if len(token.text) > 19 or int(token.text) > _LONG_MAX:
                raise failure(self._text, token.at, "a whole number has 64 bits; larger ones are written as 1e20")
            return int(token.text)
        value = float(token.text)
        if math.isinf(value):
            raise failure(self._text, token.at, "no double is so large")
        return value

    def _moment(self, kind: str, token: _Token) -> Literal:
        try:
            if kind == "date":
                return date.fromisoformat(_text(token))
            found = datetime.fromisoformat(_text(token))
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise failure(self._text, token.at, f"is no {kind}: {error}") from None


def _text(token: _Token) -> str:
    return token.text[1:-1].replace("''", "'")
