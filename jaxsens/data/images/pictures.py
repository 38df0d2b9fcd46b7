"""JPEG and PNG files, opened by what they hold and decoded when they are needed."""

import io

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from jaxsens.data.dataset import DataError, reason
from jaxsens.data.files.budget import PIXELS, Budget, for_one_image
from jaxsens.data.files.opened import looks

# Named by what a file starts with, not by its name: ImageNet has a PNG called .JPEG. Opening the
# plug-ins themselves leaves the question of how many pixels are too many to PIXELS alone.
DECODERS = {b"\xff\xd8\xff": JpegImageFile, b"\x89PNG\r\n\x1a\n": PngImageFile}
MAX_PARTS = 2**16  # of one image; encoders write pieces of 8 KiB and more
SCAN = b"\xff\xda"  # begins each pass of a JPEG over its pixels


def opened(content: bytes, label: str, budget: Budget) -> Image.Image:
    """The image in a JPEG or PNG file, not decoded yet. Raises DataError, ``label`` first."""
    plugin = next((p for magic, p in DECODERS.items() if content.startswith(magic)), None)
    if plugin is None:
        raise DataError(f"{label} is neither JPEG nor PNG: it {looks(content)}")
    try:
        budget.count(_parts(content))
        image = plugin(io.BytesIO(content))
        width, height = image.size
        if width * height > PIXELS:
            raise DataError(f"{label} is {width} x {height}, more than {PIXELS} pixels")
        # Every scan goes over all pixels; a honest JPEG has about ten.
        scans = content.count(SCAN) if plugin is JpegImageFile else 1
        budget.spend(len(content) + width * height * max(scans, 1))
        if plugin is PngImageFile:
            image.verify()  # decoding alone passes over the checksums of the pixels
            image = plugin(io.BytesIO(content))
    except DataError:
        raise
    except Exception as error:  # decoders fail on damaged bytes in any way there is
        raise DataError(f"{label} is damaged: {reason(error)}") from None
    image.filename = label
    return image


def _parts(content: bytes) -> int:
    """How many chunks a PNG has, or segments and padding a JPEG before its pixels.

    Of each an object is made. Raises ValueError where they are more than any encoder writes.
    """
    png = content.startswith(b"\x89")
    place = 8 if png else 2
    for count in range(MAX_PARTS):
        if place >= len(content) or content[place : place + 2] == SCAN:
            return count
        if png:
            place += 12 + int.from_bytes(content[place : place + 4])
        elif content[place : place + 2] == b"\xff\xff" or content[place] != 0xFF:
            place += 1
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4])
    raise ValueError(f"it has more than {MAX_PARTS} parts")


def decoded(image: Image.Image) -> Image.Image:
    """The image with its pixels. Raises DataError, naming its file, when they are damaged."""
    try:
        image.load()
    except Exception as error:  # as above
        label = getattr(image, "filename", "") or "an image"
        raise DataError(f"{label} is damaged: {reason(error)}") from None
    return image


def decode(content: bytes, label: str) -> Image.Image:
    """The image in a JPEG or PNG file. Raises DataError starting with ``label``."""
    return decoded(opened(content, label, for_one_image()))
