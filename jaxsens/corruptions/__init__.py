"""Common corruptions of images at five severities (Hendrycks & Dietterich 2019; paper A, 7).

>>> from jaxsens.corruptions import corrupt
>>> corrupt(images, "fog", 3, key=jax.random.key(0))  # doctest: +SKIP
"""

from jaxsens.corruptions.apply import COMMON as COMMON
from jaxsens.corruptions.apply import EXTRA as EXTRA
from jaxsens.corruptions.apply import NAMES as NAMES
from jaxsens.corruptions.apply import applicable as applicable
from jaxsens.corruptions.apply import corrupt as corrupt
