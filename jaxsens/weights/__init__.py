"""Published weights: files, their layouts, and the hub they come from."""

from jaxsens.checkpoints import CheckpointError


class WeightsError(CheckpointError):
    """Weights that are missing, damaged or of another model; the message is one line.

    A CheckpointError too, which it once was.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else "?" for c in message))
