"""Where `jaxsens.weights.pretrained` was; it stays importable under this name."""

from jaxsens.weights.pretrained import load_pretrained as load_pretrained
