"""Writing files so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> Path:
    """Call ``write`` with a binary file and put what it wrote at ``path`` in one step.

    The content goes to a temporary file in the same folder, is flushed to disk (fsync) and then renamed over
    ``path``. Parent folders are made. If ``write`` or the disk fails, the temporary file is removed, an existing
    ``path`` stays as it was, and the error is passed on; one of the disk (which is full, say) becomes an `OSError`
    that names ``path``, whatever the library that wrote has made of it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_current_umask())
        os.replace(temporary, target)
    except BaseException as error:
        os.unlink(temporary)
        cause = _disk_error(error)
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(target)) from None
    _sync_folder(target.parent)
    return target


def atomic_write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` as UTF-8 to ``path`` in one step (see `atomic_write`)."""
    return atomic_write(path, lambda file: file.write(text.encode("utf-8")))


def remove_partial_files(folder: Path) -> None:
    """Remove, below ``folder``, what processes that were killed inside `atomic_write` have left there."""
    for path in folder.rglob(".*.partial"):
        path.unlink()


def _disk_error(error: BaseException | None) -> OSError | None:
    """The error of the operating system that ``error`` is, or that came before it (torch.save raises another)."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__context__
    return error


def _current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable where the system allows opening a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
