"""Files that are either as before or complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile


def write_whole(path: str, text: str) -> None:
    """Write ``text`` to a temporary file beside ``path`` and rename it to ``path``.

    Permissions stay those of the old file, and a symbolic link stays one.

    Raises:
        OSError: If that fails; ``path`` is then what it was.
    """
    target = os.path.realpath(path)
    # In the same folder: only within one file system is renaming atomic.
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".jaxtorch-")
    try:
        # Line ends stay those of `text`.
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            # Before the rename, or a crash could leave the new name with nothing behind it.
            os.fsync(stream.fileno())
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        else:
            # mkstemp makes files that only their owner reads.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
