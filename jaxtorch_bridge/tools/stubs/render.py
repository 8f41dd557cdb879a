"""One module's stub as text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ...spec.array_tree import paths_of
from ...spec.bounded_sizes import remarks_on
from ...spec.group_remarks import remarks_below
from ...spec.language.problems import Path
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec
from .collect import StubFunction, StubModule
from .names import Names
from .signature import Form, Parameter, forms_of
from .text import docstring, indented
from .trees import Trees, keys_of, may_be_left_out

# The first line of every stub: what is not ours is never overwritten.
MARK = "# Made by `jaxtorch stubs` from contracts. Change those and run it again."
# The text below is final: a formatter that changed it would make every stub out of date.
_TOOLS = (
    "# ruff: noqa",
    "# fmt: off",
    # What the contracts do not speak of is there all the same.
    "# pyright: reportIncompleteStub=false",
)
# The contracts say nothing of a class but its functions, so its base may be anything.
_ANY_BASE = "# mypy: allow-subclassing-any"
# `{}` is a group of JAX arrays and one of tensors, where all of the group may be left out.
_EMPTY_GROUPS = "# mypy: disable-error-code=overload-overlap"


def render(module: StubModule, as_dict: Collection[str] = ()) -> str:
    """The stub of ``module``: the same text for the same contracts, with ``\\n`` line ends.

    Args:
        module: Its functions.
        as_dict: Names of the contracts whose functions return several outputs in a dict.
    """
    functions = {function.qualname for function in module.functions}
    # With the names of all contracts, so that none that is made up or imported hides one.
    names = Names(_given_names(module))
    body = _Scope()
    definitions: list[str] = []
    for function in module.functions:
        holder = names.make(*function.qualname)
        definitions += _callable_class(function, holder, names, function.spec.name in as_dict)
        body.add(function, holder)
    declarations = body.lines(names)
    # A contract may be of a module's own `__getattr__`, which then is declared already.
    rest = [] if ("__getattr__",) in functions else [*_other_names(names), ""]
    # Last: `imports` tells of all names that the parts above have used.
    lines = [
        *_header(module),
        "",
        *names.imports(),
        "",
        *rest,
        *definitions,
        *declarations,
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _header(module: StubModule) -> Iterator[str]:
    yield MARK
    for function in module.functions:
        older = f" (not {', '.join(function.older)})" if function.older else ""
        yield f"#   {function.spec.label}{older}: {'.'.join(function.qualname)}"
    yield from _TOOLS
    if any(len(function.qualname) > 1 for function in module.functions):
        yield _ANY_BASE
    if any(_takes_an_empty_group_alone(function.spec) for function in module.functions):
        yield _EMPTY_GROUPS


def _takes_an_empty_group_alone(spec: CallableSpec) -> bool:
    groups = any(not isinstance(node, TensorSpec) for node in spec.inputs.values())
    return groups and all(map(may_be_left_out, spec.inputs.values()))


def _other_names(names: Names) -> Iterator[str]:
    yield "# What the contracts do not speak of."
    yield f"def __getattr__(name: {names.use('str')}) -> {names.use('Any')}: ..."


def _given_names(module: StubModule) -> set[str]:
    found: set[str] = set()
    for function in module.functions:
        found.update(function.qualname)
        for node in (*function.spec.inputs.values(), *function.spec.outputs.values()):
            found |= keys_of(node)
    return found


@dataclass
class _Scope:
    """A module or class: its functions and the classes in it."""

    functions: list[tuple[StubFunction, str]] = field(default_factory=list)
    classes: dict[str, _Scope] = field(default_factory=dict)

    def add(self, function: StubFunction, holder: str) -> None:
        """Put the function where its qualified name says."""
        scope = self
        for name in function.qualname[:-1]:
            scope = scope.classes.setdefault(name, _Scope())
        scope.functions.append((function, holder))

    def lines(self, names: Names) -> list[str]:
        """The declarations of everything in it."""
        found: list[str] = []
        for function, holder in self.functions:
            found += [f"{function.qualname[-1]}: {holder}", *docstring(_summary(function.spec)), ""]
        for name, scope in self.classes.items():
            found += [f"class {name}({names.use('Any')}):", *indented(scope.lines(names))]
        return found


def _callable_class(
    function: StubFunction, holder: str, names: Names, as_dict: bool
) -> Iterator[str]:
    """The class of the callable, after the dicts that its signature has."""
    jax = Trees(function.spec, names, "Array")
    torch = Trees(function.spec, names, "Tensor", "Tensors")
    forms = forms_of(function.spec, jax, torch, *function.qualname, as_dict=as_dict)
    yield from jax.lines
    if len(forms) > 1:
        yield from torch.lines
    yield f"class {holder}({names.use('JaxCallable')}[..., {names.use('Any')}]):"
    if len(function.qualname) > 1:
        # As an attribute of a class it is bound to the instance, which calls do not show.
        owner = f"{names.use('type')} | None = None"
        some = names.use("Any")
        head = f"def __get__(self, instance: {some}, owner: {owner})"
        yield from indented([f"{head} -> {names.use('Self')}: ..."])
    for number, form in enumerate(forms):
        if len(forms) > 1:
            yield from indented([f"@{names.use('overload')}"])
        doc = docstring(_long_doc(function.spec)) if number == 0 else ()
        yield from indented(_call(form, doc))
    yield ""


def _call(form: Form, doc: Collection[str]) -> Iterator[str]:
    receiver = "self"
    # An input may be called `self`.
    while any(one.name == receiver for one in form.parameters):
        receiver = f"_{receiver}"
    end = f") -> {form.result}:"
    yield "def __call__("
    yield from indented(f"{one}," for one in (receiver, "/", *_starred(form.parameters)))
    yield from (end, *indented(doc)) if doc else (f"{end} ...",)


def _starred(parameters: Iterable[Parameter]) -> Iterator[str]:
    starred = False
    for parameter in parameters:
        if parameter.keyword_only and not starred:
            starred = True
            yield "*"
        yield str(parameter)


def _summary(spec: CallableSpec) -> str:
    own = (spec.doc or "").strip()
    label = f"Contract {spec.label}."
    return f"{own}\n\n{label}" if own else label


def _long_doc(spec: CallableSpec) -> str:
    static = {name: one.doc for name, one in spec.static.items()}
    sections = {
        "Args": {**_remarks(_docs_of(spec, "inputs")), **_remarks(static)},
        "Returns": _remarks(_docs_of(spec, "outputs")),
        "Dimensions": _remarks(spec.dimensions),
        "Constraints": _remarks({str(one): one.doc for one in spec.constraints}),
    }
    parts = [_summary(spec)]
    if spec.constraints:
        parts[0] += f" Sizes must fit {', '.join(map(str, spec.constraints))}."
    for title, remarks in sections.items():
        if remarks:
            lines = [line for name, remark in remarks.items() for line in _entry(name, remark)]
            parts.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join(parts)


def _docs_of(spec: CallableSpec, kind: str) -> dict[str, str | None]:
    """The remarks on all arrays, and on groups before those on what they hold."""
    docs: dict[str, str | None] = dict(remarks_below(spec.groups, kind))
    return {
        ".".join(path): _doc_of(spec, path, node)
        if isinstance(node, TensorSpec)
        else docs.get(".".join(path))
        for path, node in paths_of(getattr(spec, kind))
    }


def _doc_of(spec: CallableSpec, path: Path, leaf: TensorSpec) -> str | None:
    bounded = ", ".join(remarks_on(leaf, spec.bounds))
    shape = f"`{leaf}`, {bounded}." if bounded else ""
    counts = f"How many `{spec.counts[path]}` there are." if path in spec.counts else ""
    return "\n".join(one for one in (leaf.doc, shape or counts) if one) or None


def _remarks(docs: Mapping[str, str | None]) -> dict[str, str]:
    return {name: doc.strip() for name, doc in docs.items() if doc and doc.strip()}


def _entry(name: str, remark: str) -> list[str]:
    first, *others = remark.splitlines()
    return indented([f"{name}: {first}", *indented(others)])
