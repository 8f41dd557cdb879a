from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtorch_bridge.spec.language.shapes import (
    Name,
    Operation,
    Rest,
    Shape,
    ShapeSyntaxError,
    Size,
    Term,
    evaluate,
    names_in,
    parse_comparison,
    parse_dimension,
    parse_shape,
)
from jaxtorch_bridge.spec.language.size_algebra import same_term


def test_rank_zero_has_no_dimensions():
    assert parse_shape("[]") == Shape(())
    assert parse_shape("[ ]").least_rank == 0


def test_names_sizes_and_rest_are_told_apart():
    shape = parse_shape("[batch, 3, ..., dim]")
    assert shape.dimensions == (Name("batch"), Size(3), Rest(), Name("dim"))
    assert shape.rest_axis == 2
    assert shape.least_rank == 3
    assert shape.plain_names == {"batch", "dim"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seq+1", 8),
        ("dim*2", 24),
        ("2*dim", 24),
        ("dim//seq", 1),
        ("seq+2*dim", 31),
        ("(seq+2)*dim", 108),
        ("dim-seq-1", 4),
        ("dim-(seq-1)", 6),
        ("dim//2*3", 18),
        ("2*(dim//(seq-3))", 6),
    ],
)
def test_arithmetic_follows_python(text, value):
    assert evaluate(parse_dimension(text), {"seq": 7, "dim": 12}) == value


def test_evaluation_waits_for_unbound_names():
    assert evaluate(parse_dimension("seq+other"), {"seq": 7}) is None
    assert names_in(parse_dimension("seq+2*other")) == {"seq", "other"}


def test_division_by_zero_is_raised():
    with pytest.raises(ZeroDivisionError):
        evaluate(parse_dimension("1//n"), {"n": 0})


@pytest.mark.parametrize(
    ("text", "column", "expected", "found"),
    [
        ("batch", 1, r"`\[`", "`batch` at column 1"),
        ("", 1, r"`\[`", "the end at column 1"),
        ("[batch", 7, "`,` or `]`", "the end at column 7"),
        ("[batch,]", 8, "a dimension", "`]` at column 8"),
        ("[a b]", 4, "`,` or `]`", "`b` at column 4"),
        ("[2dim]", 3, "`,` or `]`", "`dim` at column 3"),
        ("[a, ..., ...]", 10, "at most once", "`...` at column 10"),
        ("[a+]", 4, "a dimension", "`]` at column 4"),
        ("[a+...]", 4, "a dimension", "`...` at column 4"),
        ("[-1]", 2, "a dimension", "`-` at column 2"),
        ("[(a]", 4, r"`\)`", "`]` at column 4"),
        ("[a/2]", 3, "floor division is `//`", "`/` at column 3"),
        ("[he@ds]", 4, "a name", "`@` at column 4"),
        ("[a] b", 5, "the end", "`b` at column 5"),
        ("[__import__('os')]", 12, "`,` or `]`|a name", "at column 1"),
        ("[a**2]", 4, "a dimension", r"`\*` at column 4"),
        ("[n, 5-7]", 5, "a size of 0 or more", "`5` at column 5"),
        ("[a//0]", 5, "a divisor other than 0", "`0` at column 5"),
        ("[n, a//(2-2*1)]", 8, "a divisor other than 0", r"`\(` at column 8"),
        ("[" + "9" * 19 + "]", 2, "18 digits", "at column 2"),
        ("[" + "(" * 17, 18, "16 nested", "at column 18"),
        ("[" + "+".join("a" * 70) + "]", 131, "64 operations", "at column 131"),
        ("[" + "a" * 1001, 1, "1000 characters", "1002 characters"),
    ],
)
def test_syntax_errors_say_column(text, column, expected, found):
    with pytest.raises(ShapeSyntaxError, match=expected) as caught:
        parse_shape(text)
    assert caught.match(found)
    if not text.startswith("[__import__"):
        assert caught.value.column == column


def test_columns_count_from_the_beginning_of_the_text():
    with pytest.raises(ShapeSyntaxError, match="column 12 of `float32") as caught:
        parse_shape("float32[a, @]", 7)
    assert caught.value.column == 12


def _divides_by_zero(term: Term) -> bool:
    if not isinstance(term, Operation):
        return False
    if term.operator == "//" and not names_in(term.right):
        try:
            if evaluate(term.right, {}) == 0:
                return True
        except ZeroDivisionError:
            return True
    return _divides_by_zero(term.left) or _divides_by_zero(term.right)


def _may_be_a_size(term: Term) -> bool:
    return bool(names_in(term)) or evaluate(term, {}) >= 0


def _terms() -> st.SearchStrategy[Term]:
    leaves = st.one_of(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True).map(Name),
        st.integers(0, 10**6).map(Size),
    )
    operators = st.sampled_from(["+", "-", "*", "//"])
    return st.recursive(
        leaves, lambda inner: st.builds(Operation, operators, inner, inner), max_leaves=8
    )


@given(_terms().filter(lambda term: not _divides_by_zero(term)).filter(_may_be_a_size))
def test_printed_dimensions_parse_to_themselves(term):
    assert parse_dimension(str(term)) == term


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("n+n", "2*n", True),
        ("(n+1)*(m+1)", "n*m+n+m+1", True),
        ("(n-1)//1024+1", "(n+1023)//1024", True),
        ("(n+2*p-k)//2+1", "(n+2*p-k+2)//2", True),
        # These differ at few sizes, or only at large ones.
        ("n//1024", "n//2048", False),
        ("n//64+1", "(n+63)//64", False),
        ("(n+3)//64", "(n+2)//64", False),
        ("(n+511)//512*512", "(n+512)//512*512", False),
        ("(n-k)//s", "(n-k-1)//s", False),
        ("(n-k)//160+1", "(n-k+159)//160", False),
    ],
)
def test_terms_that_mean_the_same(left, right, same):
    first, _, second = parse_comparison(f"{left} == {right}")
    assert same_term(first, second) == same
    assert same_term(second, first) == same
