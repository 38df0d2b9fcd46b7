"""jaxsens: how much a decision moves when one token of the input is nudged.

>>> import jaxsens
>>> jaxsens.sensitivity(model, x, key=key, tokens=jaxsens.Patches(4),
...                     noise=jaxsens.Gaussian(1.0))  # doctest: +SKIP
"""

import importlib
import pkgutil
from types import ModuleType

from jaxsens._compare import Comparison as Comparison
from jaxsens._compare import Difference as Difference
from jaxsens._compare import compare as compare
from jaxsens._decision import Threshold as Threshold
from jaxsens._decision import decision as decision
from jaxsens._sensitivity import SensitivityEstimate as SensitivityEstimate
from jaxsens._sensitivity import sensitivity as sensitivity
from jaxsens.noise import Flip as Flip
from jaxsens.noise import Gaussian as Gaussian
from jaxsens.noise import Noise as Noise
from jaxsens.noise import Replacement as Replacement
from jaxsens.tokens import Bits as Bits
from jaxsens.tokens import Patches as Patches
from jaxsens.tokens import Positions as Positions
from jaxsens.tokens import Scatter as Scatter
from jaxsens.tokens import Tokens as Tokens
from jaxsens.tokens import Whole as Whole

__version__ = "0.1.0"


def _submodules() -> set[str]:
    """Imported when they are first asked for, so that `import jaxsens` takes no longer for them."""
    return {found.name for found in pkgutil.iter_modules(__path__) if found.name[0] != "_"}


def __getattr__(name: str) -> ModuleType:
    if name[0] != "_" and name in _submodules():
        return importlib.import_module(f"jaxsens.{name}")
    raise AttributeError(f"module 'jaxsens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_submodules()})
