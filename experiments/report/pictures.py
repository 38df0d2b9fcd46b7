"""Figures made small enough to stand inside a page."""

import base64
import io
from pathlib import Path

WIDTH, COLOURS = 1000, 96


def inlined(path: Path) -> str | None:
    """A picture as the address that HTML shows it by; None where there is none that can be read."""
    from PIL import Image

    try:
        with Image.open(path) as found:
            picture = found.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    few = picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
