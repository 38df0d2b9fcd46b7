"""What reading files from outside may take, in one place: bytes, items, work and waiting.

Formats say how much follows, readers make room for it, and a file can say anything. Every reader
of one source charges the same `Budget` before it makes room or sets to work.
"""

import dataclasses

FILE = 2**26  # bytes of one compressed image; ImageNet's largest take 16 MB
PIXELS = 2**26  # of one image; ImageNet's largest photographs are just below
MEMBERS = 2**12  # of an archive of arrays or batches; ViT-L/16 has 296 arrays
AXES = 8  # of one array
WAIT = 20.0  # seconds for an answer of a server


class OverBudget(ValueError):
    """A file asks for more than reading it may take; the message names the limit."""


@dataclasses.dataclass
class Budget:
    """What is left for reading one source, a data set or the weights of a model.

    size: bytes that come out and stay; SVHN, the largest, takes 305 MB.
    items: files, members, records and operations; ImageNet has 1.3 million images.
    work: bytes and pixels gone over on the way, however little of them stays.
    """

    size: int = 3 * 2**27
    items: int = 2**21
    work: int = 2**31

    def __post_init__(self) -> None:
        self._limits = (self.size, self.items, self.work)

    def keep(self, size: int) -> int:
        """Charge ``size`` bytes that will stay in memory. Raises OverBudget."""
        self.size -= size
        if size < 0 or self.size < 0:
            raise OverBudget(f"it takes more than {self._limits[0]} bytes in memory")
        return size

    def count(self, items: int = 1) -> None:
        """Charge files, members, records or operations. Raises OverBudget."""
        self.items -= items
        if self.items < 0:
            raise OverBudget(f"it has more than {self._limits[1]} parts")

    def spend(self, work: int) -> None:
        """Charge bytes or pixels that are gone over. Raises OverBudget."""
        self.work -= work
        if self.work < 0:
            raise OverBudget(f"it grows to more than {self._limits[2]} bytes on the way")


def for_one_image() -> Budget:
    """The budget of an image that is read by itself, out of a million."""
    return Budget(size=FILE, work=2**30)
