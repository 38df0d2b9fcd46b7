"""jaxsens: how much a decision moves when one token of the input is nudged.

>>> import jaxsens
>>> jaxsens.sensitivity(model, x, key=key, tokens=jaxsens.Patches(4))  # doctest: +SKIP
"""

from jaxsens._decision import decision as decision
from jaxsens.noise import Flip as Flip
from jaxsens.noise import Gaussian as Gaussian
from jaxsens.noise import Noise as Noise
from jaxsens.noise import Replacement as Replacement
from jaxsens.sensitivity import SensitivityEstimate as SensitivityEstimate
from jaxsens.sensitivity import sensitivity as sensitivity
from jaxsens.tokens import Bits as Bits
from jaxsens.tokens import Patches as Patches
from jaxsens.tokens import Positions as Positions
from jaxsens.tokens import Scatter as Scatter
from jaxsens.tokens import Tokens as Tokens
from jaxsens.tokens import Whole as Whole

__version__ = "0.1.0"
