"""A module as a function of its parameters, its buffers and what it is called with."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..._compat.torch import pytrees
from ..._compat.torch.fake_tensors import is_fake
from ...call_site import caller_level
from ...errors import BridgeError, BridgeWarning, ModuleError
from ..closure.closure_state import Secluded
from ..observe.rare_watch import RareWatch
from .container_pictures import Container, Picture
from .named_tensors import NamedTensor
from .recorded_calls import recorder
from .skeleton import Skeleton, Template
from .state_watch import OperationWatch, WriteCounts
from .structure_copy import NotCopiedError

Method = str | Callable[..., Any] | None

# Of integers that index: torch has few operations that take narrower ones.
_WIDE = {torch.int64: torch.int32, torch.uint64: torch.uint32}


class BuffersChange(BridgeError):
    """A call changes buffers that it was not planned to change; it is planned again.

    Attributes:
        names: Those buffers.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"buffers change: {', '.join(names)}")


@dataclass(frozen=True)
class Mode:
    """In which way a module is called.

    Attributes:
        train: Of all its parts; None: as they were when it was taken.
        changed: Buffers that the call changes, and returns.
        returns_buffers: Whether the caller takes changed buffers back.
        keyed: Whether a random key comes with the call.
    """

    train: bool | None = None
    changed: tuple[str, ...] = ()
    returns_buffers: bool = False
    keyed: bool = False


class ModuleCall(Secluded):
    """A torch function ``(params, buffers, *args, **kwargs)``, of flat dicts by name.

    What a call changes of the module's structure is its own skeleton's, and is put back. So it
    closes over nothing that anybody else could reach; that is why it has no ``__dict__``.
    """

    # `ClosureState` follows what has a `__dict__`, and would find the skeletons there.
    __slots__ = (
        "__name__",
        "__signature__",
        "__weakref__",
        "_apart",
        "_buffers",
        "_caches",
        "_changed",
        "_dirty",
        "_free",
        "_method",
        "_mode",
        "_parts",
        "_rare",
        "_template",
        "_traced",
        "_wide",
        "state_count",
    )

    def __init__(self, template: Template, method: Method, mode: Mode, name: str) -> None:
        self.__name__ = name
        self.__signature__ = signature_of(template.module, method)
        self._template = template
        self._method = method
        self._mode = mode
        # Those that no call holds. Two calls at the same time need two.
        self._free: list[Skeleton] = []
        self._parts: set[int] = set()
        self._traced = False
        self._rare = RareWatch()
        self._dirty: frozenset[tuple[str, str]] = frozenset()
        self._apart: frozenset[tuple[str, str]] = frozenset()
        self._caches: list[Any] = []
        self._changed = [
            index for index, named in enumerate(template.named) if named.name in mode.changed
        ]
        self._buffers = [i for i, named in enumerate(template.named) if named.is_buffer]
        self._wide = [
            (index, named.dtype, _WIDE[named.dtype])
            for index, named in enumerate(template.named)
            if named.dtype in _WIDE
        ]
        self.state_count = len(template.named)

    def __call__(
        self, params: Mapping[str, Any], buffers: Mapping[str, Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run on tensors; the dicts are those of `Template.named`."""
        state = [
            (buffers if named.is_buffer else params)[named.name] for named in self._template.named
        ]
        return self.on_state(state, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.__name__} {self._mode}: {self._template.module}>"

    @property
    def mode(self) -> Mode:
        """In which way the module is called."""
        return self._mode

    def owns(self, module: torch.nn.Module) -> bool:
        """Whether a module is part of a skeleton, which one call at a time can reach."""
        return id(module) in self._parts

    @property
    def called(self) -> Callable[..., Any]:
        """The code whose result a call's is."""
        return called_of(self._template.module, self._method)

    @property
    def changed(self) -> list[tuple[str, int, torch.dtype]]:
        """The buffers that come back: the name, which tensor of the state it is, and its dtype."""
        named = self._template.named
        return [(named[index].name, index, named[index].dtype) for index in self._changed]

    def around(self) -> Any:
        """A function that is called instead of the module."""
        return self._method if callable(self._method) else None

    def structure(self) -> torch.nn.Module:
        """What skeletons are copied from."""
        module: torch.nn.Module = self._template.module
        return module

    def on_state(self, state: Sequence[torch.Tensor], /, *args: Any, **kwargs: Any) -> Any:
        """Run on the parameters and buffers in the order of the slots."""
        abstract = _is_abstract(state, args, kwargs)
        skeleton = self._take()
        tensors = list(state)
        for index, dtype, narrow in self._wide:
            if tensors[index].dtype is narrow:
                tensors[index] = tensors[index].to(dtype)
        # Inputs are XLA's memory, which must not be written to. Where nobody has seen what
        # runs, any buffer may be: a call that is planned again must find it as it was.
        for index in self._changed if abstract or self._traced else self._buffers:
            if tensors[index] is state[index]:
                tensors[index] = tensors[index].clone()
        recorded = recorder()
        picture, before = None, []
        try:
            skeleton.fill(tensors)
            if recorded is not None:
                # The backward may change anything.
                picture, before = skeleton.picture(), skeleton.references()
            if abstract or not self._traced:
                result = self._watched(skeleton, state, tensors, args, kwargs, abstract)
            elif self._dirty or self._caches:
                result = self._restored(skeleton, args, kwargs)
            else:
                result = self._run(skeleton, args, kwargs)
        except BaseException:
            # What an error left half done is nobody's: this skeleton is dropped.
            self._put_back(skeleton, picture)
            raise
        if recorded is None:
            self._put_back(skeleton, None)
            self._give_back(skeleton)
        else:
            recorded.wait(functools.partial(self._finish, skeleton, picture, before))
        return result

    def _finish(self, skeleton: Skeleton, picture: Picture | None, before: list[int]) -> bool:
        """Clean up behind a recorded call; whether others refer to layers."""
        self._put_back(skeleton, picture)
        referred = skeleton.is_referred_to(before)
        # Who refers to them will not run them any more, or is dropped now.
        self._give_back(skeleton)
        return referred

    def _put_back(self, skeleton: Skeleton, picture: Picture | None) -> None:
        if picture is not None:
            picture.put_back()
            for cache in self._caches:
                cache.cache_clear()
        skeleton.empty()

    def _give_back(self, skeleton: Skeleton) -> None:
        if self._apart <= skeleton.apart:
            self._free.append(skeleton)

    def _take(self) -> Skeleton:
        try:
            # One step, without a look before: another thread may take the last one in between.
            return self._free.pop()
        except IndexError:
            skeleton = self._template.skeleton(self._mode.train)
            self._parts |= {id(part) for _, part in skeleton.parts}
            return skeleton

    def _run(self, skeleton: Skeleton, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        method = self._method
        if method is None:
            result = skeleton.module(*args, **kwargs)
        elif isinstance(method, str):
            result = getattr(skeleton.module, method)(*args, **kwargs)
        else:
            result = method(skeleton.module, *args, **kwargs)
        if not self._mode.returns_buffers:
            return result
        named = self._template.named
        return result, {named[index].name: skeleton.read(index) for index in self._changed}

    def _restored(self, skeleton: Skeleton, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if recorder() is not None:
            return self._run(skeleton, args, kwargs)  # put back when the gradient is taken
        picture = skeleton.picture(self._dirty)
        try:
            return self._run(skeleton, args, kwargs)
        finally:
            picture.put_back()
            for cache in self._caches:
                cache.cache_clear()

    def _watched(
        self,
        skeleton: Skeleton,
        state: Sequence[torch.Tensor],
        tensors: Sequence[torch.Tensor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        abstract: bool,
    ) -> Any:
        """An abstract run, or a real one of a function that cannot run abstractly.

        What parts hold is compared each time. A mode of torch's, which sees each operation, is in
        force in abstract runs, and in real ones as `RareWatch` says; the others go by counts of
        writes.
        """
        self._refuse_shapes(state)
        # Whatever ends this run early, the next one is watched as well.
        self._traced = False
        picture = skeleton.picture()
        caches = [(cache, cache.cache_info().misses) for cache in self._template.caches]
        if abstract or self._rare.due():
            # Both what came in and what was made of it: a tensor that was cast or cloned is other
            # memory.
            watch: OperationWatch | WriteCounts = OperationWatch(
                self._template, (*enumerate(state), *enumerate(tensors))
            )
        else:
            watch = WriteCounts(tensors)
        try:
            with watch:
                result = self._run(skeleton, args, kwargs)
            replaced = {
                index for index, tensor in enumerate(tensors) if skeleton.read(index) is not tensor
            }
            self._refuse_changes((watch.written | replaced) - set(self._changed))
        finally:
            changes = picture.changes()
            if changes and recorder() is None:
                picture.put_back()
            for cache, misses in caches:
                # What was found in the cache left nothing of this call there.
                if cache.cache_info().misses != misses:
                    cache.cache_clear()
                    if cache not in self._caches:
                        self._caches.append(cache)
        self._note_changes(changes)
        self._traced = abstract
        return result

    def _refuse_shapes(self, state: Sequence[torch.Tensor]) -> None:
        for named, tensor in zip(self._template.named, state, strict=True):
            if tuple(tensor.shape) != named.shape:
                raise wrong_shape(self.__name__, named, tensor.shape)

    def _refuse_changes(self, indices: set[int]) -> None:
        named = [self._template.named[index] for index in sorted(indices)]
        params = [item.name for item in named if not item.is_buffer]
        if params:
            raise ModuleError(
                f"{self.__name__}: expected parameters to be left as they are, but the module "
                f"writes to {listed(params)}. Register what it changes as a buffer."
            )
        names = [item.name for item in named]
        if names and not self._mode.returns_buffers:
            raise ModuleError(
                f"{self.__name__}: this call changes the buffers {listed(names)}, and nobody "
                "takes them back. Pass `buffers=`, and get `(result, buffers)`; or `train=False`."
            )
        if names:
            raise BuffersChange(names)

    def _note_changes(self, changes: Mapping[Container, Mapping[Any, Any]]) -> None:
        """Remember which containers have to be put back, and say so once."""
        # Buffers that were assigned to are results.
        names = {named.name for named in self._template.named}
        dirty, words, held = set(), [], set()
        for one, entries in changes.items():
            found = {key: now for key, now in entries.items() if one.words(key) not in names}
            if found:
                dirty.add((one.part, one.name))
                held |= {one.held.key} if one.held else set()
            words += [one.words(key) for key, now in found.items() if one.is_state(key, now)]
        if held - self._apart:
            self._hold_apart(held)
        if words and dirty - self._dirty:
            warnings.warn(
                f"{self.__name__}: the module assigns to {listed(words)} while it runs. A JAX "
                "function keeps nothing from call to call, so this is put back after every call. "
                "Register as a buffer what the next call is to see.",
                BridgeWarning,
                stacklevel=caller_level(),
            )
        self._dirty |= dirty

    def _hold_apart(self, held: set[tuple[str, str]]) -> None:
        """Let no two calls share these, nor a call and the module."""
        try:
            self._template.hold_apart(held)
        except NotCopiedError as error:
            paths = [path for _, path in held]
            raise ModuleError(
                f"{self.__name__}: expected what the module changes while it runs "
                f"({listed(paths)}) to be copied for each call; {error}."
            ) from error
        self._apart |= held
        # Skeletons that calls hold now are dropped when these end.
        self._free.clear()


def wrong_shape(label: str, named: NamedTensor, shape: Sequence[int]) -> ModuleError:
    """What to raise for a parameter or buffer of another shape than the module's."""
    kind = "buffer" if named.is_buffer else "parameter"
    return ModuleError(
        f"{label}, {kind} `{named.name}`: expected shape {named.shape}, as in the module; got "
        f"{tuple(shape)}. For a stack of parameters use jax.vmap."
    )


def _is_abstract(state: Sequence[Any], args: Any, kwargs: Any) -> bool:
    """Whether a call is one without memory."""
    # One tensor tells; most modules have one of their own.
    values = state[:1] or pytrees.arg_tree_leaves(*args, **kwargs)
    return any(isinstance(value, torch.Tensor) and is_fake(value) for value in values)


def listed(names: Sequence[str]) -> str:
    """Some names, for messages."""
    shown = [f"`{name}`" for name in names[:4]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def called_of(module: torch.nn.Module, method: Method) -> Callable[..., Any]:
    """What a call of a module runs."""
    if callable(method):
        return method
    found: Callable[..., Any] = getattr(module, method or "forward")
    return found


def signature_of(module: torch.nn.Module, method: Method) -> inspect.Signature:
    """``(params, buffers, /, ...)``, then what the module's own code calls its arguments."""
    leading = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("params", "buffers")
    ]
    target: Any = getattr(module, method or "forward") if not callable(method) else method
    try:
        own = list(inspect.signature(target).parameters.values())
        # A function's first argument is the module itself.
        return inspect.Signature([*leading, *(own[1:] if callable(method) else own)])
    except (TypeError, ValueError):
        rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        names = ("args", "kwargs")
        return inspect.Signature([*leading, *map(inspect.Parameter, names, rest)])
