# Made by `jaxtorch stubs` from contracts. Change those and run it again.
#   encoder_block@1.0.0: Encoder.Block.forward
#   encoder@1.0.0: Encoder.forward
#   scale@1.2.0: scale
#   split@1.0.0: split
#   states@1.0.0: states
#   model.step@0.3.0: step
# ruff: noqa
# fmt: off
# pyright: reportIncompleteStub=false
# mypy: allow-subclassing-any

from typing import Any, NotRequired, Self, TypedDict, overload
from jax import Array
from jaxtorch_bridge import JaxCallable
from jaxtyping import Float32, Int32, Int64
from torch import Tensor

# What the contracts do not speak of.
def __getattr__(name: str) -> Any: ...

class _EncoderBlockForward(JaxCallable[..., Any]):
    def __get__(self, instance: Any, owner: type | None = None) -> Self: ...
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "batch dim"],
        *,
        dropout: float = 0.0,
    ) -> Float32[Array, "batch dim"]:
        """One block.

        Contract encoder_block@1.0.0.
        """
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "batch dim"],
        *,
        dropout: float = 0.0,
    ) -> Float32[Tensor, "batch dim"]: ...

class _EncoderForward(JaxCallable[..., Any]):
    def __get__(self, instance: Any, owner: type | None = None) -> Self: ...
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "batch dim"],
    ) -> Float32[Array, "batch dim"]:
        """Contract encoder@1.0.0."""
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "batch dim"],
    ) -> Float32[Tensor, "batch dim"]: ...

class _ScaleOutputs(TypedDict):
    scaled: Float32[Array, "n width"]
    count: Int64[Array, ""]

class _ScaleOutputsTensors(TypedDict):
    scaled: Float32[Tensor, "n width"]
    count: Int64[Tensor, ""]

class _Scale(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        rows: Float32[Array, "n width"],
    ) -> _ScaleOutputs:
        """Contract scale@1.2.0."""
    @overload
    def __call__(
        self,
        /,
        rows: Float32[Tensor, "n width"],
    ) -> _ScaleOutputsTensors: ...

class _Split(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "n"],
    ) -> tuple[Float32[Array, "n//2"], Float32[Array, "n-n//2"]]:
        """Contract split@1.0.0."""
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "n"],
    ) -> tuple[Float32[Tensor, "n//2"], Float32[Tensor, "n-n//2"]]: ...

class _States(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "n"],
    ) -> tuple[Float32[Array, "n"], Float32[Array, "n"]]:
        """Contract states@1.0.0."""
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "n"],
    ) -> tuple[Float32[Tensor, "n"], Float32[Tensor, "n"]]: ...

class _StepParamsEncoder(TypedDict):
    weight: Float32[Array, "n m"]
    bias: NotRequired[Float32[Array, "m"] | None]

class _StepParamsLayers0(TypedDict):
    w: Float32[Array, "m m"]

_StepParams = TypedDict("_StepParams", {
    'encoder': _StepParamsEncoder,
    'layers': tuple[_StepParamsLayers0, Float32[Array, "m"]],
    'layer.0 bias': Float32[Array, "m"],
})

class _StepEmpty(TypedDict):
    pass

class _StepHints(TypedDict):
    order: NotRequired[Int32[Array, "n"] | None]

_StepOutputsState = TypedDict("_StepOutputsState", {
    'weight': Float32[Array, "n m"],
    'lambda': Float32[Array, ""],
})

class _StepOutputs(TypedDict):
    state: _StepOutputsState
    losses: tuple[Float32[Array, "n"], Float32[Array, "m"]]

class _StepParamsEncoderTensors(TypedDict):
    weight: Float32[Tensor, "n m"]
    bias: NotRequired[Float32[Tensor, "m"] | None]

class _StepParamsLayers0Tensors(TypedDict):
    w: Float32[Tensor, "m m"]

_StepParamsTensors = TypedDict("_StepParamsTensors", {
    'encoder': _StepParamsEncoderTensors,
    'layers': tuple[_StepParamsLayers0Tensors, Float32[Tensor, "m"]],
    'layer.0 bias': Float32[Tensor, "m"],
})

class _StepEmptyTensors(TypedDict):
    pass

class _StepHintsTensors(TypedDict):
    order: NotRequired[Int32[Tensor, "n"] | None]

_StepOutputsStateTensors = TypedDict("_StepOutputsStateTensors", {
    'weight': Float32[Tensor, "n m"],
    'lambda': Float32[Tensor, ""],
})

class _StepOutputsTensors(TypedDict):
    state: _StepOutputsStateTensors
    losses: tuple[Float32[Tensor, "n"], Float32[Tensor, "m"]]

class _Step(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        params: _StepParams,
        pair: tuple[Float32[Array, "n"], Float32[Array, "n"] | None],
        single: tuple[Float32[Array, "n"]],
        none: tuple[()],
        empty: _StepEmpty,
        hints: _StepHints | None = None,
    ) -> _StepOutputs:
        """Contract model.step@0.3.0.

        Args:
            params: The weights, as they come from training.
            params.layers: From the first
                to the last.
            params.layers.0: Ends in \"\"\"quotes\"
            empty: Nothing yet.

        Returns:
            losses: Before and after.
        """
    @overload
    def __call__(
        self,
        /,
        params: _StepParamsTensors,
        pair: tuple[Float32[Tensor, "n"], Float32[Tensor, "n"] | None],
        single: tuple[Float32[Tensor, "n"]],
        none: tuple[()],
        empty: _StepEmptyTensors,
        hints: _StepHintsTensors | None = None,
    ) -> _StepOutputsTensors: ...

scale: _Scale
"""Contract scale@1.2.0."""

split: _Split
"""Contract split@1.0.0."""

states: _States
"""Contract states@1.0.0."""

step: _Step
"""Contract model.step@0.3.0."""

class Encoder(Any):
    forward: _EncoderForward
    """Contract encoder@1.0.0."""

    class Block(Any):
        forward: _EncoderBlockForward
        """One block.

        Contract encoder_block@1.0.0.
        """
