"""JPEGs as other programs, and people who mean harm, write them."""

import io


def progressive(image, scans=0, comment=b""):
    """A progressive JPEG of a Pillow image; its last scan is there `scans` times more."""
    file = io.BytesIO()
    image.save(file, "JPEG", progressive=True, comment=comment)
    data = file.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + b"\xff\xd9"
