"""WebP: takes profile and EXIF data, drops other metadata, and lets the first frame of an animation be transparent.

Source: RFC 9649, section 2 (container).
"""

from __future__ import annotations

from jobs.images.containers.container import Container

_PIXELS = frozenset({b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
#: Flags in the first byte of ``VP8X``.
_PROFILE, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
_HEAD = 8
_EXTENDED = 10


def read(data: bytes) -> Container:
    """Return the facts of a WebP.

    The file for the decoder ends with its last complete chunk of pixels, whatever length the file states; a single
    incomplete chunk is left to the decoder, which rejects it.
    """
    at, frames = 12, 0
    needed: list[bytes] = []
    metadata: dict[bytes, bytes] = {}
    while at + _HEAD <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        content = data[at + _HEAD : at + _HEAD + size]
        complete = len(content) == size
        if name in _PIXELS and (complete or not frames):
            frames += name == b"ANMF"
            needed.append(_chunk(name, size, content))
        elif complete:
            metadata.setdefault(name, content)
        at += _HEAD + size + size % 2
    if needed and needed[0].startswith(b"VP8X") and len(needed[0]) >= _HEAD + _EXTENDED:
        needed[0] = _without_metadata(needed[0])
    body = b"".join(needed)
    exif = metadata.get(b"EXIF", b"")
    return Container(
        data=b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body,
        exif=exif.removeprefix(b"Exif\x00\x00"),
        orientation=None if exif else 1,
        profile=metadata.get(b"ICCP", b""),
        frames=max(1, frames),
    )


def _chunk(name: bytes, size: int, content: bytes) -> bytes:
    return name + size.to_bytes(4, "little") + content + bytes(size % 2)


def _without_metadata(chunk: bytes) -> bytes:
    flags = chunk[_HEAD] & ~(_PROFILE | _EXIF | _XMP)
    if flags & _ANIMATION:
        # Where the first frame does not cover the canvas, the animation is transparent, whatever the file says.
        flags |= _ALPHA
    return chunk[:_HEAD] + bytes([flags]) + chunk[_HEAD + 1 :]
