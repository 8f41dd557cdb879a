"""Shapes as contracts write them, such as ``[..., batch, 3, seq+1]``: parse, print, evaluate.

A dimension is a name, a size, ``...`` (any run of dimensions), arithmetic over names and sizes, or
a name with a bound, such as ``kept<=100``. Text is read by a small recursive descent parser, and
nothing is ever evaluated as Python.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from .wording import quote

# `%` only in constraints: no array has a remainder for a size.
Operator = Literal["+", "-", "*", "//", "%"]

# Generous for people, small enough that hostile text costs nothing.
_LONGEST_TEXT = 1000
# In digits: what fits in 64 bits.
_LONGEST_SIZE = 18
_MOST_OPERATIONS = 64
_DEEPEST_PARENTHESES = 16

# Longer signs first, or `<=` would be read as `<`.
_TOKEN = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<size>[0-9]+)|(?P<sign>\.\.\.|//|[=!<>]=|[\[\](),+*%<>-])"
)
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
_PRECEDENCE: dict[Operator, int] = {"+": 1, "-": 1, "*": 2, "//": 2, "%": 2}


class ShapeSyntaxError(ValueError):
    """Text that is no shape.

    Attributes:
        expected: What could have stood there.
        found: What stands there, with column and text.
        column: 1-based column in the text.
    """

    def __init__(self, expected: str, found: str, column: int) -> None:
        self.expected = expected
        self.found = found
        self.column = column
        super().__init__(f"expected {expected}; got {found}")


@dataclass(frozen=True)
class Name:
    """A dimension whose size the first array that has it decides."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Size:
    """A dimension of one fixed size."""

    size: int

    def __str__(self) -> str:
        return str(self.size)


@dataclass(frozen=True)
class Rest:
    """``...``: any number of dimensions, the same ones everywhere in a call."""

    def __str__(self) -> str:
        return "..."


@dataclass(frozen=True)
class Operation:
    """Arithmetic over dimensions."""

    operator: Operator
    left: Term
    right: Term

    def __str__(self) -> str:
        own = _PRECEDENCE[self.operator]
        left = str(self.left) if _precedence(self.left) >= own else f"({self.left})"
        # All operators group to the left, so an equal one on the right keeps its parentheses.
        right = str(self.right) if _precedence(self.right) > own else f"({self.right})"
        return f"{left}{self.operator}{right}"


Term: TypeAlias = Name | Size | Operation
Dimension: TypeAlias = Term | Rest


@dataclass(frozen=True)
class Bounded:
    """A dimension whose size follows from values, and is at most that of ``bound``."""

    name: str
    bound: Term

    def __str__(self) -> str:
        return f"{self.name}<={self.bound}"


def _precedence(term: Term) -> int:
    return _PRECEDENCE[term.operator] if isinstance(term, Operation) else 3


@dataclass(frozen=True)
class Shape:
    """The dimensions of one array, outermost first.

    Attributes:
        dimensions: What each is.
        bounds: Those of its names that have a bound.
    """

    dimensions: tuple[Dimension, ...]
    bounds: tuple[Bounded, ...] = ()

    @staticmethod
    def of(parts: Sequence[Dimension | Bounded]) -> Shape:
        """The shape with these dimensions."""
        bounds = tuple(dict.fromkeys(one for one in parts if isinstance(one, Bounded)))
        return Shape(
            tuple(Name(one.name) if isinstance(one, Bounded) else one for one in parts), bounds
        )

    def __str__(self) -> str:
        written = {one.name: str(one) for one in self.bounds}
        return "[" + ", ".join(written.get(str(one), str(one)) for one in self.dimensions) + "]"

    @property
    def rest_axis(self) -> int | None:
        """Where ``...`` stands, or None."""
        places = (i for i, one in enumerate(self.dimensions) if isinstance(one, Rest))
        return next(places, None)

    @property
    def least_rank(self) -> int:
        """The number of dimensions, not counting ``...``."""
        return len(self.dimensions) - (self.rest_axis is not None)

    @property
    def plain_names(self) -> frozenset[str]:
        """The names that stand alone, so that an array's shape says their size."""
        return frozenset(one.name for one in self.dimensions if isinstance(one, Name))


def names_in(dimension: Dimension) -> frozenset[str]:
    """All dimension names that ``dimension`` speaks of."""
    if isinstance(dimension, Name):
        return frozenset((dimension.name,))
    if isinstance(dimension, Operation):
        return names_in(dimension.left) | names_in(dimension.right)
    return frozenset()


def with_terms(term: Term, terms: Mapping[str, Term]) -> Term:
    """The term with others in the place of names."""
    if isinstance(term, Name):
        return terms.get(term.name, term)
    if isinstance(term, Size):
        return term
    left, right = with_terms(term.left, terms), with_terms(term.right, terms)
    return Operation(term.operator, left, right)


def evaluate(term: Term, sizes: Mapping[str, int]) -> int | None:
    """The size of ``term``, or None while one of its names has none.

    Raises:
        ZeroDivisionError: For ``//`` and ``%`` with a divisor that is 0.
    """
    if isinstance(term, Name):
        return sizes.get(term.name)
    if isinstance(term, Size):
        return term.size
    left, right = evaluate(term.left, sizes), evaluate(term.right, sizes)
    if left is None or right is None:
        return None
    if term.operator == "+":
        return left + right
    if term.operator == "-":
        return left - right
    if term.operator == "%":
        return left % right
    return left * right if term.operator == "*" else left // right


def _is_zero(term: Term) -> bool:
    """Whether it is 0 whatever the sizes are, as far as numbers alone tell."""
    return not names_in(term) and evaluate(term, {}) == 0


# The contracts of one codebase write the same few shapes again and again.
@functools.lru_cache(maxsize=1024)
def parse_shape(text: str, start: int = 0) -> Shape:
    """The shape written in ``text`` from ``start`` on, such as ``[batch, seq+1]``.

    Raises:
        ShapeSyntaxError: If it is none. Columns count from the beginning of ``text``.
    """
    parser = _Parser(text, start)
    parser.take("[", "`[`")
    dimensions: list[Dimension | Bounded] = []
    if parser.here.text != "]":
        dimensions.append(parser.dimension(dimensions))
        while parser.here.text == ",":
            parser.advance()
            dimensions.append(parser.dimension(dimensions))
    parser.take("]", "`,` or `]`")
    parser.finish("the end after `]`")
    return Shape.of(dimensions)


def parse_dimension(text: str) -> Dimension | Bounded:
    """The single dimension written in ``text``, such as ``seq+1``.

    Raises:
        ShapeSyntaxError: If it is none.
    """
    parser = _Parser(text, 0)
    dimension = parser.dimension([])
    parser.finish("the end of the dimension")
    return dimension


def parse_comparison(text: str) -> tuple[Term, str, Term]:
    """Both sides and the sign of a comparison, such as ``dim % heads == 0``.

    Raises:
        ShapeSyntaxError: If it is none.
    """
    parser = _Parser(text, 0, ("*", "//", "%"))
    left = parser.term()
    if parser.here.text not in COMPARISONS:
        raise parser.unexpected("one of `== != <= >= < >`")
    sign = parser.advance().text
    right = parser.term()
    parser.finish("the end of the comparison")
    return left, sign, right


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    """Recursive descent: dimension > sum > product > factor."""

    def __init__(self, text: str, start: int, products: tuple[str, ...] = ("*", "//")) -> None:
        self._text = text
        self._products = products
        if len(text) > _LONGEST_TEXT:
            raise ShapeSyntaxError(
                f"a shape of at most {_LONGEST_TEXT} characters", f"{len(text)} characters", 1
            )
        self._tokens = self._split(start)
        self._at = 0
        self._operations = 0
        self._depth = 0

    @property
    def here(self) -> _Token:
        return self._tokens[self._at]

    def advance(self) -> _Token:
        token = self.here
        # The end token stays, so that looking ahead is always safe.
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def take(self, text: str, expected: str) -> None:
        if self.here.text != text:
            raise self.unexpected(expected)
        self.advance()

    def finish(self, expected: str) -> None:
        if self.here.kind != "end":
            raise self.unexpected(expected)

    def dimension(self, before: list[Dimension | Bounded]) -> Dimension | Bounded:
        if self.here.text == "...":
            if any(isinstance(one, Rest) for one in before):
                raise self.unexpected("`...` at most once in a shape")
            self.advance()
            return Rest()
        first = self.here
        term = self._size()
        if self.here.text != "<=":
            return term
        if not isinstance(term, Name):
            raise self._error("a name alone before `<=`", first)
        self.advance()
        return Bounded(term.name, self._size())

    def _size(self) -> Term:
        first = self.here
        term = self.term()
        # Of numbers alone: with names it may be negative in some calls only, which are refused
        # then.
        if not names_in(term) and (evaluate(term, {}) or 0) < 0:
            raise self._error("a size of 0 or more", first)
        return term

    def term(self) -> Term:
        self._operations = 0
        return self._sum()

    def _sum(self) -> Term:
        term = self._product()
        while self.here.text in ("+", "-"):
            term = Operation(self._operator(), term, self._product())
        return term

    def _product(self) -> Term:
        term = self._factor()
        while self.here.text in self._products:
            operator, divisor = self._operator(), self.here
            factor = self._factor()
            if operator in ("//", "%") and _is_zero(factor):
                raise self._error("a divisor other than 0", divisor)
            term = Operation(operator, term, factor)
        return term

    def _operator(self) -> Operator:
        self._operations += 1
        if self._operations > _MOST_OPERATIONS:
            raise self.unexpected(f"at most {_MOST_OPERATIONS} operations in a dimension")
        return cast(Operator, self.advance().text)

    def _factor(self) -> Term:
        token = self.here
        if token.kind == "name":
            return Name(self.advance().text)
        if token.kind == "size":
            if len(token.text) > _LONGEST_SIZE:
                raise self.unexpected(f"a size of at most {_LONGEST_SIZE} digits")
            return Size(int(self.advance().text))
        if token.text == "(":
            return self._parenthesis()
        raise self.unexpected("a dimension: a name, a size, `...` or arithmetic over them")

    def _parenthesis(self) -> Term:
        self._depth += 1
        if self._depth > _DEEPEST_PARENTHESES:
            raise self.unexpected(f"at most {_DEEPEST_PARENTHESES} nested parentheses")
        self.advance()
        term = self._sum()
        self.take(")", "`)`")
        self._depth -= 1
        return term

    def _split(self, start: int) -> tuple[_Token, ...]:
        tokens = []
        at = start
        while at < len(self._text):
            if self._text[at] in " \t\r\n":
                at += 1
                continue
            match = _TOKEN.match(self._text, at)
            if match is None:
                hint = " (floor division is `//`)" if self._text[at] == "/" else ""
                found = _Token("unknown", self._text[at], at + 1)
                raise self._error(f"a name, a size or one of `+ - * // ( ) ... , ]`{hint}", found)
            tokens.append(_Token(match.lastgroup or "", match.group(), at + 1))
            at = match.end()
        return (*tokens, _Token("end", "", len(self._text) + 1))

    def unexpected(self, expected: str) -> ShapeSyntaxError:
        return self._error(expected, self.here)

    def _error(self, expected: str, token: _Token) -> ShapeSyntaxError:
        thing = "the end" if token.kind == "end" else quote(token.text)
        found = f"{thing} at column {token.column} of {quote(self._text)}"
        return ShapeSyntaxError(expected, found, token.column)
