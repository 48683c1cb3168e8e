"""Small accidents that happen to files."""

from __future__ import annotations

import random


def mutated(content: bytes, generator: random.Random) -> bytes:
    """The content with one to three small accidents."""
    mutant = bytearray(content)
    for _ in range(generator.randint(1, 3)):
        place, length = generator.randrange(len(mutant) + 1), generator.choice((1, 1, 1, 2, 8, 64))
        kind = generator.choice(("flip", "drop", "repeat", "insert", "cut", "digit"))
        if kind == "flip" and place < len(mutant):
            mutant[place] ^= 1 << generator.randrange(8)
        elif kind == "drop":
            del mutant[place : place + length]
        elif kind == "repeat":
            mutant[place:place] = mutant[place : place + length]
        elif kind == "insert":
            mutant[place:place] = generator.choice((b"[", b"{", b'"', b"NaN", b"1e999", b"null", b"9" * 5000, b"\xff"))
        elif kind == "digit":
            mutant[place : place + 1] = b"7"
        elif generator.random() < 0.2:
            del mutant[place:]
    return bytes(mutant)
