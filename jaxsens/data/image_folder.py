"""Where `jaxsens.data.images.image_folder` was; it stays importable under this name."""

from jaxsens.data.images.image_folder import ImageTree as ImageTree
from jaxsens.data.images.pictures import decode as decode
