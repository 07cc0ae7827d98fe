"""Names what a file is that Longlook does not read: another image format, or no image at all."""

from __future__ import annotations

import re

from core import errors
from jobs.images import rejections

#: First bytes of image formats that Longlook does not read.
_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"II\xbc\x01", "a JPEG XR image"),
    (b"IIRO", "a raw photo (ORF)"),
    (b"IIRS", "a raw photo (ORF)"),
    (b"MMOR", "a raw photo (ORF)"),
    (b"IIU\x00", "a raw photo (RW2)"),
    (b"FUJIFILMCCD-RAW", "a raw photo (RAF)"),
    (b"FOVb", "a raw photo (X3F)"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"\x00\x00\x01\x00", "a Windows icon (ICO)"),
    (b"\x00\x00\x02\x00", "a Windows cursor (CUR)"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"DDS ", "a DirectDraw Surface (DDS)"),
    (b"\xabKTX ", "a KTX texture"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"qoif", "a QOI image"),
    (b"farbfeld", "a farbfeld image"),
    (b"BPG\xfb", "a BPG image"),
    (b"FLIF", "a FLIF image"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (b"\x8bJNG\r\n\x1a\n", "a JNG image"),
    (b"\xd7\xcd\xc6\x9a", "a Windows Metafile (WMF)"),
    (b"AT&TFORM", "a DjVu document"),
)
#: First bytes of other files.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"\x00\x00\x01\xba", "an MPEG video"),
    (b"\x00\x00\x01\xb3", "an MPEG video"),
    (b"FLV\x01", "a Flash video"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 file"),
    (b"fLaC", "a FLAC file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer"),
    (b"data:", "a data URL"),
)
#: Names of RIFF files by their type.
_RIFF = {b"WAVE": "a WAV file", b"AVI ": "an AVI video"}
#: Brands of ISO base media files that are images.
_ISO_IMAGES = {
    b"crx ": "a raw photo (CR3)",
    b"jxl ": "a JPEG XL image",
    b"jp2 ": "a JPEG 2000 image",
    b"jpx ": "a JPEG 2000 image",
    b"j2ki": "a JPEG 2000 image in HEIF",
    b"avci": "a HEIF image with AVC compression",
    b"vvic": "a HEIF image with VVC compression",
}
#: First characters of base64 by the format that is in it.
_BASE64: tuple[tuple[bytes, str], ...] = (
    (b"/9j/", "a JPEG"),
    (b"iVBORw0KGgo", "a PNG"),
    (b"UklGR", "a WebP"),
    (b"R0lGOD", "a GIF"),
    (b"Qk", "a BMP"),
    (b"SUkqA", "a TIFF"),
    (b"TU0AK", "a TIFF"),
    (b"AAAA", "a HEIC or AVIF"),
    (b"JVBERi", "a PDF document"),
)
#: The ends of the names of files that an encoding has made text.
_ENCODED = ("base64 text", "a data URL", "a Python bytes object")
_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/_-]{16,}+=*+[\s\x00]*+", re.ASCII)
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NETPBM = re.compile(rb"P[1-7f F][\s#]")
#: Bytes of the beginning that names are searched in.
_HEAD = 1024


def rejection(data: bytes) -> errors.ImageRejected:
    """Return the rejection of a file that :func:`jobs.images.formats.sniff` does not know, with its kind."""
    if kind := _image(data):
        return rejections.unsupported(kind)
    kind = _other(data)
    encoded = kind is not None and kind.endswith(_ENCODED)
    return rejections.not_an_image(f"{kind}; send the bytes of the image" if encoded else kind)


def describe(data: bytes) -> str | None:
    """Return what a file that :func:`jobs.images.formats.sniff` does not know appears to be, or None."""
    return _image(data) or _other(data)


def _image(data: bytes) -> str | None:
    for magic, kind in _IMAGES:
        if data.startswith(magic):
            return kind
    if data[4:8] == b"ftyp":
        return _ISO_IMAGES.get(data[8:12])
    if _NETPBM.match(data):
        return "a Netpbm image"
    if data[:4] == b"\x01\x00\x00\x00" and data[40:44] == b" EMF":
        return "a Windows Metafile (EMF)"
    text = _text(data)
    if text is not None and re.search(rb"<(?:\w{1,32}:)?svg[\s>]", text):
        return "an SVG drawing"
    return None


def _other(data: bytes) -> str | None:
    for magic, kind in _OTHERS:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], "a RIFF file without an image")
    if data[4:8] == b"ftyp":
        return "a video or an audio file"
    text = _text(data)
    return None if text is None else _kind_of_text(text)


def _kind_of_text(text: bytes) -> str:
    start = text.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start:
        return "an HTML page"
    if start.startswith(b"<"):
        return "an XML document"
    if start[:1] in {b"{", b"["}:
        return "JSON"
    stripped = text.lstrip()
    if stripped[:2] in {b"b'", b'b"'}:
        return "the text of a Python bytes object"
    if _BASE64_TEXT.match(b"".join(stripped.split())):
        inner = next((kind for magic, kind in _BASE64 if stripped.startswith(magic)), None)
        return f"{inner} as base64 text" if inner else "base64 text"
    return "a URL" if start.startswith((b"http://", b"https://")) else "text"


def _text(data: bytes) -> bytes | None:
    """Return the beginning of the file as ASCII-compatible text, or None if it is not text."""
    head = data[:_HEAD]
    for bom in _BOMS:
        if head.startswith(bom):
            return head[len(bom) :].replace(b"\x00", b"")
    # Control characters besides white space do not occur in text, and even in other encodings much of it is ASCII.
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head):
        return None
    ascii_bytes = sum(byte < 128 for byte in head)  # noqa: PLR2004 - the number of ASCII characters
    return head if 2 * ascii_bytes >= len(head) or head.decode(errors="ignore") else None
