"""Damage to the bytes of a file."""

from random import Random

__all__ = ["damaged"]


def damaged(content: bytes, random: Random) -> bytes:
    """Return content with some bytes changed, lost, doubled or moved."""
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        content = random.choice(_DAMAGES)(bytearray(content or b"\0"), random)
    return content


def _flip(content: bytearray, random: Random) -> bytes:
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return bytes(content)


def _overwrite(content: bytearray, random: Random) -> bytes:
    place = random.randrange(len(content))
    value = random.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\x00\xca\x9a\x3b"))
    content[place : place + len(value)] = value * random.choice((1, 1, 2))
    return bytes(content)


def _cut(content: bytearray, random: Random) -> bytes:
    return bytes(content[: random.randrange(len(content))])


def _doubled(content: bytearray, random: Random) -> bytes:
    start = random.randrange(len(content))
    part = content[start : start + random.randrange(1, 200)]
    return bytes(content[:start] + part * random.choice((1, 2, 50)) + content[start:])


def _lost(content: bytearray, random: Random) -> bytes:
    start = random.randrange(len(content))
    del content[start : start + random.randrange(1, 50)]
    return bytes(content)


def _noise(content: bytearray, random: Random) -> bytes:
    start = random.randrange(len(content))
    content[start : start + 20] = random.randbytes(20)
    return bytes(content)


_DAMAGES = (_flip, _flip, _overwrite, _overwrite, _cut, _doubled, _lost, _noise)
