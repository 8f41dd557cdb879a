"""Contract files as a git commit has them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator

from ...spec.files.contract_files import SUFFIXES
from .output import stop


def fork_point(ref: str) -> str:
    """The commit where the current branch left ``ref``: what a merge request is compared with."""
    # A ref that begins with a dash must not be read as an option.
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if commit is None:
        stop(f"git knows no commit `{ref}` here. Fetch it, or run this inside the repository.")
    common = _git("merge-base", commit.strip(), "HEAD")
    # Without a common ancestor, the commit itself.
    return (common or commit).strip()


def files_at(commit: str, paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Path (from the current folder) and content of each contract file below ``paths``.

    The same files as `contract_files` would find: hidden ones only where they are named.
    """
    # As git will write them; a search path is absolute.
    roots = tuple(map(os.path.relpath, paths))
    # -z: git writes names as they are, without quotes and escapes.
    listing = _git("ls-tree", "-r", "-z", commit, "--", *roots)
    if listing is None:
        stop(f"git cannot list {', '.join(f'`{one}`' for one in roots)}: not in this repository?")
    entries = [line.split("\t", 1) for line in listing.split("\0") if line]
    # A file that was named counts whatever its suffix; below folders only contracts do.
    blobs = [
        (path, head.split()[2])
        for head, path in entries
        if path in roots or (path.endswith(SUFFIXES) and not _is_hidden(path, roots))
    ]
    # One process for all of them: starting git for each file would take longer than the rest.
    done = subprocess.run(
        ["git", "cat-file", "--batch"],
        input="".join(f"{blob}\n" for _, blob in blobs).encode(),
        capture_output=True,
        check=True,
    )
    output, at = done.stdout, 0
    for path, _ in blobs:
        end = output.index(b"\n", at)
        size_bytes = int(output[at:end].split()[2])
        yield path, output[end + 1 : end + 1 + size_bytes]
        # Past two line ends: behind the header, and behind the content.
        at = end + size_bytes + 2


def _is_hidden(path: str, roots: tuple[str, ...]) -> bool:
    """Whether a part of ``path`` below all of the ``roots`` that hold it begins with a dot."""
    below = [
        path if root == os.curdir else path[len(root) :].lstrip(os.sep)
        for root in roots
        if root == os.curdir or path.startswith(root + os.sep)
    ]
    return all(
        any(part.startswith(".") for part in rest.split(os.sep) if part != os.pardir)
        for rest in below
    )


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        stop("`--git` needs the program git, which is not installed.")
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
