"""Text files of a data set: image lists and class lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ciss_fast.data.image_files import IGNORE
from ciss_fast.errors import DataError

MAX_CLASSES = IGNORE


def read_image_list(path: str | os.PathLike[str], id_of: Callable[[str], str] = str) -> list[str]:
    """The image ids, in order: ``id_of`` the first field of each line that is not blank.

    Raises `DataError` if the file is missing, not text, empty, or names an image twice.
    """
    first_line: dict[str, int] = {}
    for number, line in _lines(path, "image list"):
        name = id_of(line.split()[0])
        if name in first_line:
            raise DataError(
                f"{path}: {name!r} on line {number} stands on line {first_line[name]} already; "
                f"expected each image once"
            )
        first_line[name] = number
    if not first_line:
        raise DataError(f"{path}: image list is empty; expected one image id a line")
    return list(first_line)


def read_class_list(path: str | os.PathLike[str]) -> list[str]:
    """Class names from lines ``id name``; ids count from 0, in any order. A line for 255 (ignored) is
    skipped.

    Raises `DataError` if the file is missing, a line has another form, or ids repeat or leave a gap.
    """
    names: dict[int, str] = {}
    for number, line in _lines(path, "class list"):
        fields = line.split(maxsplit=1)
        if len(fields) != 2 or not (fields[0].isascii() and fields[0].isdigit()):
            raise DataError(
                f"{path}: line {number} is {line!r}; expected 'id name', for example '0 background'"
            )
        class_id = int(fields[0])
        if class_id == IGNORE:
            continue
        if class_id in names:
            raise DataError(f"{path}: class id {class_id} repeats on line {number}; expected each id once")
        names[class_id] = fields[1]
    missing = sorted(set(range(len(names))) - set(names))
    if missing:
        raise DataError(f"{path}: class id {missing[0]} is missing; expected all ids from 0 to {max(names)}")
    return check_class_names(path, [names[class_id] for class_id in range(len(names))])


def check_class_names(path: str | os.PathLike[str], names: Sequence[str]) -> list[str]:
    """``names`` as a list; raises `DataError` naming ``path`` if they are too few, too many or repeat."""
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"{path}: {len(names)} classes; expected 2 to {MAX_CLASSES}, with class 0 the background"
        )
    for index, name in enumerate(names):
        if name in names[:index]:
            raise DataError(f"{path}: class name {name!r} repeats; expected each name once")
    return list(names)


def _lines(path: str | os.PathLike[str], kind: str) -> list[tuple[int, str]]:
    """Line numbers and stripped texts of all lines that are not blank."""
    if not Path(path).is_file():
        raise DataError(f"{path}: {kind} missing; expected a text file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {kind} unreadable; expected UTF-8 text, got {error}") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
