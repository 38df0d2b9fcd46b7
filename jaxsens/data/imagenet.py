"""Where `jaxsens.data.images.imagenet` was; it stays importable under this name."""

from jaxsens.data.images.imagenet import batches as batches
from jaxsens.data.images.imagenet import open_images as open_images
from jaxsens.data.images.imagenet import square as square
