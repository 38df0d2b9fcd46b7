"""Progress measures: how far a network has come on a task with a known Fourier solution.

Modular addition follows Nanda et al. 2023 (arXiv 2301.05217): a network that generalises computes
cos(w_k (a + b - c)), w_k = 2 pi k / p, for a few key frequencies k. Logits here are those of all
p^2 pairs, in the order a p + b. Sparse parity: the Fourier weight on the parity itself.
"""

import numpy as np
from jax import Array
from jaxtyping import Float, Int

# Classes, for NumPy's own ArrayLike is no class that jaxtyping could look into on every version.
ArrayLike = Array | np.ndarray


def by_sum(logits: Float[ArrayLike, "pp k"]) -> Float[np.ndarray, "p k"]:
    """Mean logits of the p pairs with a + b = s mod p, for s = 0..p-1.

    What a function of (a, b) has in common with functions of a + b is a function of s, so the
    components cos(w_k (a + b)) and sin(w_k (a + b)) of the logits are those of this table.
    Raises ValueError unless the number of rows is the square of an odd p >= 3.
    """
    table = np.asarray(logits, np.float64)
    p = round(np.sqrt(len(table))) if table.ndim == 2 else 0
    if p < 3 or p % 2 == 0 or p * p != len(table):
        raise ValueError(
            f"logits must be (p^2, classes), all pairs a p + b of an odd p, got {table.shape}"
        )
    a, s = np.arange(p)[:, None], np.arange(p)[None]
    return table.reshape(p, p, -1)[a, (s - a) % p].mean(axis=0)


def frequency_power(logits: Float[ArrayLike, "pp k"]) -> Float[np.ndarray, " half"]:
    """Power of the logits in each frequency k = 1..(p-1)/2 of a + b.

    ::

        power_k = sum_c mean_{a,b} (component of logit c along cos, sin of w_k (a + b))^2

    By Parseval the powers add up to at most the variance of the logits over pairs, summed over c.
    """
    return _powers(by_sum(logits))


def key_frequencies(logits: Float[ArrayLike, "pp k"], *, share: float = 0.05) -> tuple[int, ...]:
    """The frequencies that hold at least ``share`` of the total :func:`frequency_power`."""
    power = frequency_power(logits)
    if not power.sum() > 0:
        raise ValueError("the logits do not depend on a + b: no frequency is a key frequency")
    return tuple(int(k) + 1 for k in np.flatnonzero(power >= share * power.sum()))


def embedding_power(embedding: Float[ArrayLike, "p d"]) -> Float[np.ndarray, " half"]:
    """Power of the number embeddings in each frequency k = 1..(p-1)/2 of the number."""
    return _powers(np.asarray(embedding, np.float64))


def gini(values: Float[ArrayLike, " n"]) -> float:
    """Gini coefficient of n values >= 0: 0 when all are equal, 1 - 1/n when one has everything."""
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    if n == 0 or ordered[0] < 0 or not ordered.sum() > 0:
        raise ValueError("gini needs values that are 0 or more and not all 0")
    return float(2 * (np.arange(1, n + 1) @ ordered) / (n * ordered.sum()) - (n + 1) / n)


def restricted_loss(logits: Float[ArrayLike, "pp k"], frequencies: tuple[int, ...]) -> float:
    """Mean cross-entropy over all pairs of logits reduced to the given frequencies of a + b.

    Their mean over all pairs stays. It falls when the network computes the sum by these
    frequencies, whatever else it does beside.
    """
    table = by_sum(logits)
    kept = table.mean(axis=0) + _component(table, frequencies)
    return float(_cross_entropy(kept, np.arange(len(table))).mean())


def excluded_loss(
    logits: Float[ArrayLike, "pp k"], frequencies: tuple[int, ...], pairs: Int[ArrayLike, "n 2"]
) -> float:
    """Mean cross-entropy over ``pairs`` of logits without the given frequencies of a + b.

    On the training pairs it rises when the network gives up what it memorised.
    """
    table, full = by_sum(logits), np.asarray(logits, np.float64)
    p, (a, b) = len(table), np.asarray(pairs).T
    s = (a + b) % p
    return float(_cross_entropy(full[a * p + b] - _component(table, frequencies)[s], s).mean())


def _powers(table: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " half"]:
    spectrum = np.fft.rfft(table, axis=0)[1:] / len(table)
    return 2 * (np.abs(spectrum) ** 2).sum(axis=1)  # k and p - k


def _component(table: Float[np.ndarray, "p k"], frequencies: tuple[int, ...]) -> np.ndarray:
    half = (len(table) - 1) // 2
    if not frequencies or not all(1 <= k <= half for k in frequencies):
        raise ValueError(f"frequencies must lie in 1..{half}, at least one, got {frequencies}")
    spectrum = np.fft.rfft(table, axis=0)
    kept = np.zeros_like(spectrum)
    kept[list(frequencies)] = spectrum[list(frequencies)]
    return np.fft.irfft(kept, n=len(table), axis=0)


def _cross_entropy(logits: Float[np.ndarray, "n k"], labels: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def fourier_weight(
    signs: Float[ArrayLike, " N"], character: Float[ArrayLike, " N"]
) -> tuple[float, float]:
    """f_hat(U)^2 of a ±1 function f, from its values and those of chi_U at N >= 2 uniform points.

    ::

        m = mean(f chi_U),   weight = m^2 - s^2 / N,   stderr = sqrt(4 m^2 s^2 / N + 2 s^4 / N^2)

    with s^2 the sample variance of f chi_U; the subtraction removes the bias of m^2, so that a
    function with no such weight gives 0 on average (and below 0 at times). Raises ValueError for
    other shapes.
    """
    products = np.asarray(signs, np.float64) * np.asarray(character, np.float64)
    if products.ndim != 1 or len(products) < 2:
        raise ValueError(
            f"signs and character must be (N,) with N >= 2, got {np.shape(signs)} "
            f"and {np.shape(character)}"
        )
    mean, error = products.mean(), products.var(ddof=1) / len(products)
    return float(mean**2 - error), float(np.sqrt(4 * mean**2 * error + 2 * error**2))
