"""Trained finite networks beside the predicted learning curves of their tangent kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float64

from .architecture import Architecture
from .dynamics import train
from .finite_width import Network, empirical_ntk

RATE_POINTS = 50  # on which the largest eigenvalue of the NTK is measured


@jax.jit
def _outputs(network: Network, x: Float[Array, "N d"]) -> Float[Array, " N"]:
    return network(x)


def trained_risk(
    architecture: Architecture,
    d: int,
    n: int,
    degree: int,
    *,
    width: int,
    steps: int,
    seeds: int,
    test_points: int = 2000,
) -> tuple[Float64[np.ndarray, " seeds"], Float64[np.ndarray, " seeds"]]:
    """Test and training error of finite networks on the parity of `degree` random bits.

    Fresh points, bits and weights for each seed. Full-batch gradient descent of every parameter
    on the squared loss, at the rate points / lambda_max of the empirical NTK. What is fitted is
    f - f_0, so that the random function a network starts from is no part of the error, as in
    kernel regression from 0.
    """
    test_error, train_error = np.empty(seeds), np.empty(seeds)
    for seed in range(seeds):
        rng = np.random.default_rng([seed, n, degree])
        x = jnp.asarray(rng.choice([-1.0, 1.0], size=(n + test_points, d)), jnp.float32)
        y = jnp.prod(x[:, rng.permutation(d)[:degree]], axis=1)
        network = Network(architecture, d, width, rngs=nnx.Rngs(seed))
        start = _outputs(network, x)
        kernel = np.asarray(empirical_ntk(network, x[:RATE_POINTS]), np.float64)
        rate = len(kernel) / float(np.linalg.eigvalsh(kernel)[-1])
        trained, _ = train(
            network, x[:n], (y + start)[:n], learning_rate=rate, steps=steps, every=steps
        )
        gap = np.asarray(_outputs(trained, x) - start - y, np.float64)
        train_error[seed], test_error[seed] = np.mean(gap[:n] ** 2), np.mean(gap[n:] ** 2)
    return test_error, train_error
