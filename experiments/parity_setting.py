"""A setting of the sparse parities: one word of the command line for each network."""

import dataclasses

from command.line import UserError
from command.options import INT32, POSITIVE, SEED

PAPER = (
    "50000,250,32,1e-3,123",
    "50000,250,32,1e-3,42",
    "50000,250,32,1e-3,0",
    "10000,100,64,1e-3,42",
    "5000,25,32,1e-4,42",
    "5000,50,32,1e-4,42",
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Training points, batch size, width of the network, step size of Adam, seed."""

    train: int
    batch: int
    width: int
    learning_rate: float
    seed: int

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """From "train,batch,width,learning rate,seed"; UserError for anything else."""
        try:
            *counts, rate, seed = text.split(",")
            train, batch, width = map(int, counts)
            setting = cls(train, batch, width, float(rate), int(seed))
        except ValueError:
            raise UserError(
                "--setting takes training points, batch, width, learning rate and seed, as in "
                f"{PAPER[0]}, got {text!r}"
            ) from None
        if not (1 <= batch <= train <= INT32 and 4 <= width <= 2**14 and width % 4 == 0):
            raise UserError(
                f"--setting {text} needs 1 <= batch <= training points <= {INT32}, and a width of "
                f"up to {2**14} that 4 heads divide"
            )
        if said := SEED.wrong(setting.seed):
            raise UserError(f"--setting {text} needs a seed that is {said}")
        if said := POSITIVE.wrong(setting.learning_rate):
            raise UserError(f"--setting {text} needs a learning rate that is {said}")
        return setting

    @property
    def name(self) -> str:
        """What seeds that are trained together have in common."""
        sizes = f"{self.train} points, batch {self.batch}, width {self.width}"
        return f"{sizes}, lr {self.learning_rate:g}"
