"""JPEGs as other programs, and attackers, write them."""

import io


def progressive(image, scans=0, comment=b""):
    """A progressive JPEG of a Pillow image; its last scan is there `scans` times more."""
    file = io.BytesIO()
    image.save(file, "JPEG", progressive=True, comment=comment)
    data = file.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + b"\xff\xd9"


def segment(marker, content):
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def with_segment(data, marker, content):
    """A JPEG with one more segment, the first."""
    return data[:2] + segment(marker, content) + data[2:]


def with_late_segment(data, marker, content):
    """A JPEG with one more segment behind its picture."""
    return data[:-2] + segment(marker, content) + data[-2:]


HOME = b"/home/alice/x"
PRIVATE = {
    "Exif": (lambda data: with_segment(data, 0xE1, b"Exif\0\0" + HOME), "APP1 (Exif)"),
    "XMP": (
        lambda data: with_segment(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<a>" + HOME),
        "APP1 (http://ns.adobe.com/)",
    ),
    "IPTC": (lambda data: with_segment(data, 0xED, b"Photoshop 3.0\0" + HOME), "APP13 (Photosh"),
    "ICC": (lambda data: with_segment(data, 0xE2, b"ICC_PROFILE\0" + HOME), "APP2 (ICC_PROFILE)"),
    "a thumbnail": (lambda data: with_segment(data, 0xE0, b"JFXX\0" + HOME), "APP0 (JFXX)"),
    "C2PA": (lambda data: with_segment(data, 0xEB, b"JP\2\x11\0\0\0\1jumb" + HOME), "APP11 (C2PA)"),
    "a comment": (lambda data: with_segment(data, 0xFE, HOME), "a comment of other hands"),
    "a late comment": (lambda data: with_late_segment(data, 0xFE, HOME), "a comment behind its"),
    "a late Exif": (lambda data: with_late_segment(data, 0xE1, b"Exif\0\0"), "APP1 (Exif)"),
    "of no known use": (lambda data: with_segment(data, 0xDF, HOME), "a segment DF"),
    "a trailer": (lambda data: data + HOME, "13 bytes behind its end"),
    "no end": (lambda data: data[:-2] + HOME, "no mark of its end"),
}
