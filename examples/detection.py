"""Non-maximum suppression in a JAX program: how many boxes are left follows from their values.

Torch drops boxes in its own way, and gives as many as are left. JAX has to know sizes before, so
the contract gives a bound: results are padded to it, and come with their true number. The gradient
of a loss that only sees what was kept is compared with torch's own.

    python examples/detection.py --images 4 --boxes 200
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxtorch_bridge import jax_callable, t2j

CONTRACT = {
    "schema": "jaxtorch/1",
    "name": "nms",
    "version": "1.0.0",
    "doc": "The best boxes of an image, each without others that overlap it.",
    "inputs": {
        "boxes": "float32[n, 4]",
        "scores": "float32[n]",
    },
    "static": {"overlap": 0.5},
    "outputs": {
        "kept": "float32[kept<=50, 4]",
        "kept_scores": {"dtype": "float32", "shape": "[kept]", "overflow": "cut"},
        "count": "int32[]",
    },
    # How many are left differs from image to image.
    "vmap_method": "sequential",
}


def suppress(boxes, scores, *, overlap=0.5):
    """The boxes (left, top, right, bottom) that no better one overlaps, the best first."""
    left = scores.argsort(descending=True)
    kept = []
    while left.numel():
        best, left = left[0], left[1:]
        kept.append(best)
        corners = torch.stack([boxes[best].expand(len(left), 4), boxes[left]])
        low, high = corners[..., :2].amax(0), corners[..., 2:].amin(0)
        shared = (high - low).clamp(min=0).prod(-1)
        area = (corners[..., 2:] - corners[..., :2]).prod(-1).sum(0) - shared
        left = left[shared <= overlap * area]
    chosen = torch.stack(kept)
    return boxes[chosen], scores[chosen]


nms = jax_callable(suppress, spec=CONTRACT)


@jax.jit
def loss(boxes, scores):
    """The mean score and size of what is kept, over a batch of images."""
    kept, best, counts = jax.vmap(nms)(boxes, scores)
    sizes = (kept[..., 2] - kept[..., 0]) * (kept[..., 3] - kept[..., 1])
    # Rows beyond the count are filled with zeros, and add nothing.
    return ((best * sizes).sum(-1) / counts).mean()


def loss_in_torch(boxes, scores):
    """The same with torch alone."""
    found = []
    for one, its_scores in zip(boxes, scores, strict=True):
        kept, best = suppress(one, its_scores)
        sizes = (kept[:, 2] - kept[:, 0]) * (kept[:, 3] - kept[:, 1])
        found.append((best * sizes)[:50].sum() / len(kept))
    return torch.stack(found).mean()


def images(count: int, boxes: int):
    """Random boxes around a few things, with scores."""
    generator = torch.Generator().manual_seed(0)
    things = torch.rand(count, 12, 2, generator=generator) * 100
    which = torch.randint(12, (count, boxes), generator=generator)
    middles = torch.take_along_dim(things, which[..., None], 1)
    middles = middles + torch.randn(count, boxes, 2, generator=generator)
    halves = 4 + torch.rand(count, boxes, 2, generator=generator)
    scores = torch.rand(count, boxes, generator=generator)
    return torch.cat([middles - halves, middles + halves], -1), scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Suppress, differentiate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--boxes", type=int, default=200)
    options = parser.parse_args(arguments)

    boxes, scores = images(options.images, options.boxes)
    _, _, counts = jax.vmap(nms)(t2j(boxes), t2j(scores))
    print(f"of {options.boxes} boxes an image are left: {', '.join(map(str, counts))}")

    boxes.requires_grad_()
    wanted = loss_in_torch(boxes, scores)
    wanted.backward()
    value, slope = jax.value_and_grad(loss)(t2j(boxes.detach()), t2j(scores))
    same = np.isclose(value, wanted.item()) and jnp.allclose(slope, t2j(boxes.grad), atol=1e-5)
    print(f"loss {value:.4f}, gradient of {(slope != 0).any(-1).sum()} boxes: ", end="")
    print("as in torch" if same else f"torch has {wanted.item():.4f}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
