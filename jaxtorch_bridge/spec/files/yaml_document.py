"""A contract file as plain data, with the place of every part.

Text is read with care: size, depth and number of nodes are bounded, aliases may not form
cycles, tags that would build Python objects are refused, and a key may appear once.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import yaml

from ..language.problems import Fault, Path
from ..language.wording import quote, show
from ..source_positions import Position, Positions

MOST_BYTES = 1 << 20
MOST_NODES = 20_000
DEEPEST = 40

# Python reads long numbers in quadratic time, and refuses the longest ones.
_LONGEST_NUMBER = 64
_LONGEST_NAME = 200

# How text in UTF-16 begins.
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# Where YAML ends a line, as its own positions count.
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + name for name in ("null", "bool", "int", "float", "str"))
# Plain text that YAML 1.1 takes for something no contract has: a date, and `=`.
_AS_TEXT = frozenset((_TAG + "timestamp", _TAG + "value"))

# YAML 1.1 wants a dot and a signed exponent, so that `eps: 1e-5` would be a string.
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")


class DocumentError(Exception):
    """A file that cannot be read as plain data at all.

    Attributes:
        expected: What would have been right.
        found: What stands there instead.
        position: 1-based line and column, or None for the whole file.
        path: Where in the contract, if that is known.
    """

    def __init__(
        self, expected: str, found: str, position: Position | None = None, path: Path = ()
    ) -> None:
        self.expected = expected
        self.found = found
        self.position = position
        self.path = path
        super().__init__(f"expected {expected}; got {found}")


@dataclass(frozen=True)
class Document:
    """What a file says.

    Attributes:
        data: Dicts, lists and scalars.
        positions: Where each of them stands.
        faults: Problems that do not keep the rest from being checked, each with its place.
    """

    data: object
    positions: Positions
    faults: tuple[tuple[Fault, Position], ...]


class _Limits:
    """Composes the node graph with a limit on depth and number; mixed into a loader."""

    depth = 0
    count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            place = _position(self.peek_event())  # type: ignore[attr-defined]
            raise DocumentError(f"at most {DEEPEST} nested levels", "a deeper one", place)
        self.count += 1
        if self.count > MOST_NODES:
            place = _position(self.peek_event())  # type: ignore[attr-defined]
            raise DocumentError(f"at most {MOST_NODES} values and names", "more", place)
        node = super().compose_node(parent, index)  # type: ignore[misc]
        self.depth -= 1
        return node


class _Loader(_Limits, yaml.SafeLoader):
    """PyYAML's safe loader up to the node graph; its errors are the ones that people read."""


_loaders: list[Any] = [_Loader]
# PyYAML from source may come without it.
if yaml.__with_libyaml__:
    from yaml.composer import Composer
    from yaml.constructor import SafeConstructor
    from yaml.cyaml import CParser  # type: ignore[attr-defined]
    from yaml.resolver import Resolver

    class _FastLoader(_Limits, Composer, CParser, SafeConstructor, Resolver):
        """The same with libyaml's parser, several times as fast."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    _loaders.append(_FastLoader)


class Dumper(yaml.SafeDumper):
    """Writes text that `read_document` reads back as the same data."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out where it stands."""
        return True


def _quoted_where_needed(dumper: Dumper, text: str) -> yaml.Node:
    # YAML 1.1 takes these for ends of lines, which it reads back as plain ones.
    style = '"' if any(one in text for one in "\x85\u2028\u2029\r") else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


Dumper.add_representer(str, _quoted_where_needed)
for _yaml_class in (*_loaders, Dumper):
    _yaml_class.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))


def read_document(raw: bytes, file: str) -> Document:
    """The data and positions in ``raw``, the bytes of ``file``.

    Raises:
        DocumentError: If it is too large, not UTF-8, not YAML or holds what no contract may.
    """
    if len(raw) > MOST_BYTES:
        # Where the limit is passed; that may be inside a character, and the rest is not looked at.
        place = _position_after(raw[:MOST_BYTES].decode("utf-8-sig", "ignore"))
        raise DocumentError(f"a file of at most {MOST_BYTES} bytes", "more from here on", place)
    text = decode_text(raw)
    try:
        loader, node = _compose(text)
    except yaml.reader.ReaderError as error:
        found = f"the character U+{error.character:04X}"
        place = _position_after(text[: error.position])
        raise DocumentError("printable text", found, place) from None
    if node is None:
        raise DocumentError("a mapping", "an empty file", (1, 1))
    walk = _Walk(loader)
    data = walk.value(node, ())
    return Document(data, Positions(file, walk.values, walk.keys), tuple(walk.faults))


def decode_text(raw: bytes) -> str:
    """The text in ``raw``, without a byte order mark.

    Raises:
        DocumentError: If it is not UTF-8; with the place of the first byte that is not.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Counted in what follows a byte order mark, which `error.object` leaves out.
        before, byte = error.object[: error.start].decode("utf-8"), error.object[error.start]
        hint = " (is it UTF-16? save it as UTF-8)" if raw[:2] in _UTF16 else ""
        found = f"the byte 0x{byte:02x}{hint}"
        raise DocumentError("text in UTF-8", found, _position_after(before)) from None


def _compose(text: str) -> tuple[Any, yaml.Node | None]:
    """The node graph, and the loader that made it."""
    with contextlib.suppress(yaml.YAMLError):
        fast = _loaders[-1](text)
        return fast, fast.get_single_node()
    # Once more, for the words and place of the error.
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = (mark.line + 1, mark.column + 1) if mark is not None else None
        found = ", ".join(part for part in (error.context, error.problem) if part)
        hint = " (inside { } and [ ] put shapes in quotes)" if "got '['" in found else ""
        raise DocumentError("valid YAML", found + hint, position) from None
    return loader, node


def _position(item: Any) -> Position:
    return item.start_mark.line + 1, item.start_mark.column + 1


def _position_after(text: str) -> Position:
    lines = _LINE_END.split(text)
    return len(lines), len(lines[-1]) + 1


class _Walk:
    """One pass over the node graph, aliases written out."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._count = 0
        self._open: set[int] = set()
        self.values: dict[Path, Position] = {}
        self.keys: dict[Path, Position] = {}
        self.faults: list[tuple[Fault, Position]] = []

    def value(self, node: yaml.Node, path: Path, above: Position = (1, 1)) -> object:
        # An alias stands behind what it means, so that the later place is the one to look at.
        place = max(above, _position(node))
        # Again, and of what aliases stand for: a few lines of them can mean billions of values.
        self._count += 1
        if self._count > MOST_NODES:
            expected = f"at most {MOST_NODES} values, aliases written out"
            raise DocumentError(expected, "more", place, path)
        if len(path) > DEEPEST:
            expected = f"at most {DEEPEST} nested levels"
            raise DocumentError(expected, "a deeper one", place, path)
        # An alias is the very node that it means.
        if id(node) in self._open:
            raise DocumentError("a tree", "an alias to what encloses it", place, path)
        self.values[path] = _position(node)
        self._open.add(id(node))
        try:
            return self._content(node, path, place)
        finally:
            self._open.remove(id(node))

    def _content(self, node: yaml.Node, path: Path, place: Position) -> object:
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(one, (*path, str(i)), place) for i, one in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _AS_TEXT:
            return node.value
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, path)
        found = f"the tag {quote(node.tag.replace(_TAG, '!!'))}"
        raise DocumentError("plain data without tags", found, _position(node), path)

    def _mapping(self, node: yaml.MappingNode, path: Path, place: Position) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            name = self._name(key_node, path)
            if name is None:
                continue
            below = (*path, name)
            if name in result:
                line = self.keys[below][0]
                fault = Fault("each name once", f"{quote(name)} again, first on line {line}", below)
                self.faults.append((fault, _position(key_node)))
                continue
            self.keys[below] = _position(key_node)
            result[name] = self.value(value_node, below, place)
        return result

    def _name(self, node: yaml.Node, path: Path) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "merge":
            expected = "entries written out"
            raise DocumentError(expected, "the merge key `<<`", _position(node), path)
        if not isinstance(node, yaml.ScalarNode):
            found = "a mapping or list as name"
            self.faults.append((Fault("a string as name", found, path), _position(node)))
            return None
        if len(node.value) > _LONGEST_NAME:
            expected = f"a name of at most {_LONGEST_NAME} characters"
            raise DocumentError(expected, quote(node.value), _position(node), path)
        if node.tag != _TAG + "str":
            # `no:`, `1:` and the like; the text is still the best name for what follows.
            value = self._scalar(node, path) if node.tag in _SCALARS else node.value
            expected = f"a string as name (write {quote(node.value)} in quotes)"
            fault = Fault(expected, show(value), (*path, node.value))
            self.faults.append((fault, _position(node)))
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        try:
            if node.tag in (_TAG + "int", _TAG + "float") and len(node.value) > _LONGEST_NUMBER:
                raise ValueError
            value: object = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, OverflowError):
            kind = node.tag.replace(_TAG, "!!")
            raise DocumentError(f"a {kind}", quote(node.value), _position(node), path) from None
        return value
