"""PNG files written by hand, sample by sample: what no encoder would write."""

import struct
import zlib

import numpy as np

GREY, COLOUR, PALETTE = 0, 2, 3
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunks(header, *parts):
    """A file of these chunks, with right checksums."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), *parts, (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


def packed(samples, depth):
    """Rows of samples as bytes, each behind its filter byte."""
    flat = samples.reshape(len(samples), -1)
    bits = (flat[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def png(samples, depth, colour, *more, interlaced=False):
    """Samples ``(h, w)``, or ``(h, w, 3)`` of a coloured picture, after further chunks ``(name, body)``."""
    height, width = samples.shape[:2]
    if interlaced:
        passes = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7]
        data = b"".join(packed(part, depth) for part in passes if part.size)
    else:
        data = packed(samples, depth)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return chunks(header, *more, (b"IDAT", zlib.compress(data)))
