"""A Hilbert curve through any rectangle.

The curve of a square of 2^k cells is Hilbert's. Other rectangles are cut in two or three parts as in Jakub Červený's
generalised Hilbert curve (https://github.com/jakubcerveny/gilbert): long ones in halves, the others in a lying part
between two standing ones, always so that the parts in front have an even length where that is possible.

Places are complex numbers, row + column * 1j: a side of a rectangle is then one number, with its direction.
"""

from collections.abc import Iterator

LONG = 1.5
"""A rectangle longer than so many times its width is cut across."""


def hilbert(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Every cell of a rectangle once, as (row, column), beginning at the top left.

    Each step goes to a neighbour, left, right, up or down. The curve ends at the far end of the side it runs along, so
    this side is the even one, if one side is even; else (both even, or both odd) it is the longer.
    """
    down, right = complex(rows, 0), complex(0, columns)
    runs_right = (columns % 2, -columns) <= (rows % 2, -rows)
    along, across = (right, down) if runs_right else (down, right)
    for place in _fill(0, along, across):
        yield int(place.real), int(place.imag)


def _fill(corner: complex, along: complex, across: complex) -> Iterator[complex]:
    """Fill the rectangle at ``corner`` with sides ``along`` and ``across``, ending at the far end of ``along``."""
    length, width = int(abs(along)), int(abs(across))
    ahead, aside = along / length, across / width
    if width == 1:
        yield from (corner + step * ahead for step in range(length))
    elif length == 1:
        yield from (corner + step * aside for step in range(width))
    elif length > LONG * width:
        half = ahead * _even_half(length)
        yield from _fill(corner, half, across)
        yield from _fill(corner + half, along - half, across)
    else:
        front, side = ahead * (length // 2), aside * _even_half(width)
        yield from _fill(corner, side, front)
        yield from _fill(corner + side, along, across - side)
        yield from _fill(corner + along - ahead + side - aside, -side, front - along)


def _even_half(length: int) -> int:
    """Half of ``length``, rounded to an even number; but of 2, which is 1."""
    half = length // 2
    return half + 1 if half % 2 and length > 2 else half
