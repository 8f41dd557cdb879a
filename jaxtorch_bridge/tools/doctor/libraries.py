"""The shared libraries that both frameworks have loaded into this process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .checks import Check, fine, note, problem

MAPS = Path("/proc/self/maps")
# Loaded twice these are two libraries with one set of names, or two pools of threads.
_WATCHED = re.compile(
    r"lib(?P<name>cudart|cudnn|cublas|cublasLt|cufft|cusolver|cusparse|nccl|nvrtc|nvJitLink"
    r"|gomp|iomp5|omp)(?:-[0-9a-f]+)?\.so(?:\.(?P<version>[\d.]+))?$"
)
_OPENMP = ("gomp", "iomp5", "omp")


def loaded_libraries(maps: str) -> dict[str, dict[str, str]]:
    """Library -> path -> version, of those that matter, in the text of ``/proc/self/maps``."""
    found: dict[str, dict[str, str]] = {}
    for line in maps.splitlines():
        # The path is the sixth field, and may hold blanks.
        fields = line.split(maxsplit=5)
        if len(fields) < 6:
            continue
        match = _WATCHED.search(Path(fields[5]).name)
        if match is not None:
            found.setdefault(match["name"], {})[fields[5]] = match["version"] or ""
    return found


def examine_libraries(
    loaded: Mapping[str, Mapping[str, str]], versions: Mapping[str, str | None]
) -> Iterator[Check]:
    """Look for libraries that came in twice.

    Args:
        loaded: As `loaded_libraries` gives them.
        versions: What each framework says of its CUDA and cuDNN.
    """
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    cuda = {name: paths for name, paths in loaded.items() if name not in _OPENMP}
    if not cuda:
        words = f"no CUDA library is loaded{' (' + told + ')' if told else ''}"
        yield fine("libraries", words)
    else:
        yield fine("libraries", told or "CUDA is loaded, but neither framework tells its version")
        for name, paths in sorted(cuda.items()):
            yield from _twice(name, paths)
        yield from _majors(versions)
    openmp = {path for name in _OPENMP for path in loaded.get(name, ())}
    if len(openmp) > 1:
        text = f"{len(openmp)} OpenMP libraries, each with threads of its own: {_listed(openmp)}"
        yield note("libraries", text)


def _twice(name: str, paths: Mapping[str, str]) -> Iterator[Check]:
    # A link and its target are one file.
    real = {str(Path(path).resolve()): version for path, version in paths.items()}
    if len(real) == 1:
        ((path, version),) = real.items()
        yield fine("libraries", f"{name} {version or '(no version)'} from {path}")
    elif len(set(real.values())) == 1:
        yield note("libraries", f"{name} is loaded {len(real)} times: {_listed(real)}")
    else:
        text = f"{name} is loaded in {len(set(real.values()))} versions: {_listed(real)}"
        remedy = (
            "Install JAX and torch for one CUDA version, both with its libraries from pip, and "
            "leave LD_LIBRARY_PATH empty"
        )
        yield problem("libraries", text, remedy)


def _majors(versions: Mapping[str, str | None]) -> Iterator[Check]:
    found = {name: version.partition(".")[0] for name, version in versions.items() if version}
    for library in ("CUDA", "cuDNN"):
        mine = {name: major for name, major in found.items() if library in name}
        if len(set(mine.values())) > 1:
            words = " and ".join(f"{name} {major}" for name, major in mine.items())
            remedy = f"Install JAX and torch for one major version of {library}"
            yield problem("libraries", f"{words}: different major versions", remedy)


def versions_told() -> dict[str, str | None]:
    """What each framework says of its CUDA and cuDNN; None where it has none."""
    import torch

    from ..._compat.jax.process import cuda_versions

    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    mine = cuda_versions()
    return {
        "torch's CUDA": torch.version.cuda,
        "torch's cuDNN": None if cudnn is None else _dotted_cudnn(cudnn),
        "JAX's CUDA": mine and _dotted_cuda(mine[0]),
        "JAX's cuDNN": mine and _dotted_cudnn(mine[1]),
    }


def _dotted_cuda(number: int) -> str:
    # CUDA's number is 1000 times the major version and 10 times the minor one.
    return f"{number // 1000}.{number % 1000 // 10}"


def _dotted_cudnn(number: int) -> str:
    # Since cuDNN 9 the major version counts ten thousands.
    if number >= 90000:
        return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"
    return f"{number // 1000}.{number % 1000 // 100}.{number % 100}"


def _listed(paths: Iterable[str]) -> str:
    return ", ".join(sorted(paths))
