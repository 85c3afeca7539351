"""A strict reader of STAR files: what RELION's reader would misread or drop is refused, with its line.

Owns: blocks, labels and rows as text and numbers, and the flip of coordinates back to `yx`. Does not
own: writing (`star`), nor what other labels mean.

Refused, because RELION would abort, drop rows or take one thing for another:

1. carriage returns, other control characters, text that is not UTF-8
2. a last line without a newline, unless it is blank: it may be half a row
3. a row below an empty line (never read), a comment among rows (read as a row), a loop without rows
   before another block (which is read as its rows)
4. more or fewer values than labels, a quote that does not close
5. `data_` or `loop_` in a comment (read as a block), two blocks of one name
6. a label that runs into its `#1`, or that occurs twice
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drpwatch.errors import StarError

# A quote closes only before a blank or the end, as RELION and CIF have it.
_VALUE = re.compile(
    r"""[ \t]*(?:'((?:[^']|'(?=[^ \t]))*)'|"((?:[^"]|"(?=[^ \t]))*)"|([^ \t'"#][^ \t]*))(?=[ \t]|$)"""
)
_LABEL = re.compile(r"_([^\s#]+)(?:[ \t]+#.*)?")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Block:
    """One `data_` block: labels without their underscore, and rows of text values.

    A block of plain `_label value` pairs has one row.
    """

    name: str
    labels: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, label: str) -> list[str]:
        """Return all values of one label, given with or without its underscore.

        Raises
        ------
        StarError
            The block has no such label.
        """
        label = label.removeprefix("_")
        if label not in self.labels:
            raise StarError(f"data_{self.name} has no column _{label}")
        index = self.labels.index(label)
        return [row[index] for row in self.rows]

    def numbers(self, label: str) -> npt.NDArray[np.float64]:
        """Return (n,) all values of one label as finite numbers.

        Raises
        ------
        StarError
            The block has no such label, or a value is no finite number.
        """
        try:
            numbers = np.array([float(value) for value in self.column(label)], dtype=np.float64)
        except ValueError as error:
            raise StarError(f"data_{self.name}, column {label}: {error}") from error
        if not np.isfinite(numbers).all():
            raise StarError(f"data_{self.name}, column {label}: not every value is finite")
        return numbers

    def picks_yx(self) -> npt.NDArray[np.float64]:
        """Return (n, 2) the coordinates of all rows, in pixels.

        Raises
        ------
        StarError
            The block has no coordinates, or one is no finite number.
        """
        return np.column_stack([self.numbers("rlnCoordinateY"), self.numbers("rlnCoordinateX")])


def read(source: Path | str | bytes) -> dict[str, Block]:
    """Return the blocks of a STAR file by name; the unnamed block `data_` has the name "".

    Parameters
    ----------
    source
        A path, or the content of a file. An empty file has no blocks.

    Raises
    ------
    StarError
        The file cannot be read, or a line breaks a rule; the text names file and line.
    """
    if isinstance(source, bytes):
        return _parse(source, "STAR text")
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise StarError(f"{source}: cannot be read ({error.strerror})") from error
    return _parse(content, str(source))


class _Lines(Iterator[str]):
    """The lines of a file without outer blanks, the number of the present one, and one step back."""

    def __init__(self, content: bytes, origin: str) -> None:
        self.number = 0
        self._origin = origin
        self._lines = self._split(content)

    def _split(self, content: bytes) -> list[str]:
        try:
            lines = content.decode().split("\n")
        except UnicodeDecodeError as error:
            self.number = content.count(b"\n", 0, error.start) + 1
            raise self.error("not valid UTF-8") from error
        for self.number, line in enumerate(lines, start=1):
            if line.endswith("\r"):
                raise self.error("DOS line ends (CR LF): run dos2unix on the file")
            if found := _CONTROL.search(line):
                raise self.error(f"control character {found.group()!r}")
        if lines.pop().strip(" "):
            raise self.error("the last line has no newline: it may be half written")
        self.number = 0
        return lines

    def __next__(self) -> str:
        if self.number >= len(self._lines):
            raise StopIteration
        self.number += 1
        return self._lines[self.number - 1].strip(" \t")

    def back(self) -> None:
        self.number -= 1

    def error(self, problem: str) -> StarError:
        return StarError(f"{self._origin}, line {self.number}: {problem}")


def _parse(content: bytes, origin: str) -> dict[str, Block]:
    """Return all blocks of a file."""
    lines = _Lines(content, origin)
    blocks: dict[str, Block] = {}
    for line in lines:
        if _is_filler(line, lines):
            continue
        if not line.startswith("data_") or len(line.split()) != 1:
            raise lines.error(f"expected a data_ block, not {_shorten(line)}")
        name = line.removeprefix("data_")
        if name in blocks:
            raise lines.error(f"a second block data_{name}: RELION would read only the first")
        blocks[name] = _parse_block(name, lines)
    return blocks


def _parse_block(name: str, lines: _Lines) -> Block:
    """Return the block whose `data_` line was read last."""
    for line in lines:
        if _is_filler(line, lines):
            continue
        if line == "loop_":
            return _parse_loop(name, lines)
        lines.back()
        return _parse_pairs(name, lines)
    return Block(name, (), ())


def _parse_pairs(name: str, lines: _Lines) -> Block:
    """Return a block of `_label value` lines."""
    labels: list[str] = []
    row: list[str] = []
    for line in lines:
        if _is_filler(line, lines):
            continue
        if not line.startswith("_"):
            lines.back()
            break
        values = _values(line, lines)
        label = _LABEL.fullmatch(values[0])
        if label is None or len(values) != 2 or label.group(1) in labels:
            raise lines.error(f"expected a new _label and one value, not {_shorten(line)}")
        labels.append(label.group(1))
        row.append(values[1])
    return Block(name, tuple(labels), (tuple(row),) if row else ())


def _parse_loop(name: str, lines: _Lines) -> Block:
    """Return the block whose `loop_` line was read last; an empty line ends it."""
    labels: list[str] = []
    rows: list[tuple[str, ...]] = []
    for line in lines:
        if rows and not line:
            break
        if not rows and (not line or line.startswith("#")):
            continue
        if not rows and line.startswith("_"):
            label = _LABEL.fullmatch(line)
            if label is None or label.group(1) in labels:
                raise lines.error(f"expected a new label such as '_rlnCoordinateX #1', not {_shorten(line)}")
            labels.append(label.group(1))
            continue
        if line.startswith("#"):
            raise lines.error("a comment inside a loop: RELION would read it as a row")
        if line.startswith(("data_", "loop_")):
            raise lines.error(f"{_shorten(line)} right below a loop: RELION would read it as a row")
        values = _values(line, lines)
        if len(values) != len(labels):
            raise lines.error(f"{len(values)} values for {len(labels)} labels in {_shorten(line)}")
        rows.append(tuple(values))
    if not labels:
        raise lines.error("a loop_ without labels")
    for line in lines:
        if _is_filler(line, lines):
            continue
        if not line.startswith("data_"):
            raise lines.error(f"{_shorten(line)} below an empty line: RELION would not read it")
        lines.back()
        break
    return Block(name, tuple(labels), tuple(rows))


def _is_filler(line: str, lines: _Lines) -> bool:
    """Whether a line between blocks is empty or a harmless comment."""
    if line.startswith("#") and ("data_" in line or "loop_" in line):
        raise lines.error("data_ or loop_ in a comment: RELION would read it as a block")
    return not line or line.startswith("#")


def _values(line: str, lines: _Lines) -> list[str]:
    """Return the values of a row, without their quotes."""
    values: list[str] = []
    position = 0
    while position < len(line):
        found = _VALUE.match(line, position)
        if found is None:
            rest = line[position:].lstrip(" \t")
            if rest.startswith("#") and values:
                break
            raise lines.error(f"a quote that does not close in {_shorten(rest)}")
        values.append(found.group(found.lastindex or 0))
        position = found.end()
    return values


def _shorten(line: str) -> str:
    """Return a line for an error message."""
    return repr(line if len(line) <= 60 else line[:57] + "...")
