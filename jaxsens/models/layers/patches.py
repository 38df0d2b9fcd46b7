"""Images cut into patches."""

from jaxtyping import Array, Float


def to_patches(images: Float[Array, "n h w c"], size: int) -> Float[Array, "n t d"]:
    """Non-overlapping patches in row-major order, each flattened as (row, column, channel)."""
    n, height, width, channels = images.shape
    rows, columns = height // size, width // size
    grid = images.reshape(n, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(n, rows * columns, size * size * channels)


def check_images(images: Array, image_size: int, channels: int) -> None:
    """Raise ValueError unless `images` is (N, image_size, image_size, channels)."""
    expected = (image_size, image_size, channels)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise ValueError(
            f"images have shape {images.shape}: expected (N, {image_size}, {image_size}, "
            f"{channels}), batch first and channels last, as the model was created"
        )
