"""Sparse and frequent tokens: sequences whose label two kinds of token give away (paper A, 4.1)."""

import dataclasses
from typing import Literal, get_args

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxsens.data.dataset import DataError
from jaxsens.data.split import Split

SPARSE = (0, 1)  # the token for label +1 and the one for label -1
KINDS = ("sparse", "frequent", "irrelevant")
Rounding = Literal["down", "up", "either"]


@dataclasses.dataclass(frozen=True)
class SparseFrequent:
    """The data of Definitions 4.2 and 4.3, and the two predictors that fit it.

    Tokens are numbers 0..M-1: 0 and 1 are sparse(+) and sparse(-), 2, 4, .., 2m are frequent(+),
    3, 5, .., 2m+1 frequent(-), the rest irrelevant. An example with label y holds, in a random
    order, ``n_s`` copies of sparse(y), floor((n_f + n_d) / 2) uniform draws from frequent(y),
    n_f minus that many from frequent(-y), and T - n_f - n_s from the irrelevant tokens.

    The ``surplus`` of frequent(y) over frequent(-y) is n_d, or n_d - 1 where n_f - n_d is odd: the
    definition rounds down. ``rounding="up"`` makes it n_d + 1 there, ``"either"`` one of the two
    with equal chance in every example, so that it is n_d on average.
    Raises DataError unless 1 <= n_s <= n_f < min(m, T - n_s), 1 <= n_d <= n_f, every surplus is at
    least 1, and M >= 2m + 3. (The paper asks for n_s < n_f; its own n_s = n_f = 3 does not obey.)
    """

    n_s: int
    n_d: int
    n_f: int
    m: int
    vocabulary: int
    length: int = 50
    rounding: Rounding = "down"

    def __post_init__(self) -> None:
        def fail(need: str) -> None:
            raise DataError(
                f"the setting (n_s, n_d, n_f, m) = {(self.n_s, self.n_d, self.n_f, self.m)} with "
                f"a vocabulary of {self.vocabulary} and length {self.length} needs {need}"
            )

        if self.n_s < 1 or self.n_d < 1:
            fail("n_s >= 1 and n_d >= 1")
        if self.n_s > self.n_f:
            fail("n_s <= n_f")
        if not self.n_f < min(self.m, self.length - self.n_s):
            fail(f"n_f < min(m, T - n_s) = {min(self.m, self.length - self.n_s)}")
        if self.n_d > self.n_f:
            fail("n_d <= n_f")
        if self.rounding not in get_args(Rounding):
            fail(f"rounding {', '.join(get_args(Rounding))}, not {self.rounding!r}")
        if min(self.surpluses) < 1:
            fail("an odd n_f with n_d = 1: else frequent tokens say nothing of the label")
        if self.vocabulary < 2 * self.m + 3:
            fail(f"at least 2m + 3 = {2 * self.m + 3} tokens, one of them irrelevant")

    @property
    def surpluses(self) -> tuple[int, ...]:
        """How many more tokens are frequent(y) than frequent(-y): what examples have, all alike."""
        down, up = (2 * ((self.n_f + self.n_d + odd) // 2) - self.n_f for odd in (0, 1))
        return {"down": (down,), "up": (up,), "either": tuple(sorted({down, up}))}[self.rounding]

    def kinds(self) -> Int[np.ndarray, " M"]:
        """The kind of each token: 0 sparse, 1 frequent, 2 irrelevant."""
        return np.digitize(np.arange(self.vocabulary), [2, 2 * self.m + 2])

    def votes(self) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
        """v_sp = e(sparse+) - e(sparse-) and v_freq = sum e(frequent+) - sum e(frequent-)."""
        sign = 1.0 - 2.0 * (np.arange(self.vocabulary) % 2)
        return sign * (self.kinds() == 0), sign * (self.kinds() == 1)

    def sample(self, count: int, *, key: Array, flip_sparse: bool = False) -> Split:
        """``count`` examples: inputs (count, T) int32, labels (count,) of ±1, float32.

        ``flip_sparse`` puts sparse(-y) in the place of sparse(y): the out-of-distribution test.
        """
        rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), "uint32")))
        labels = rng.choice(np.array([-1, 1]), count)
        own, other = ((1 - sign * labels)[:, None] // 2 for sign in (1, -1))  # 0 for +, 1 for -
        low = (self.n_f + self.surpluses[0]) // 2
        agree = low + (rng.integers(0, 2, (count, 1)) if len(self.surpluses) > 1 else 0)
        with_label = np.where(np.arange(self.n_f)[None] < agree, own, other)
        rest = self.length - self.n_f - self.n_s
        parts = [
            np.repeat(other if flip_sparse else own, self.n_s, axis=1),
            2 + 2 * rng.integers(0, self.m, (count, low)) + with_label[:, :low],
            2 + 2 * rng.integers(0, self.m, (count, self.n_f - low)) + with_label[:, low:],
            rng.integers(2 * self.m + 2, self.vocabulary, (count, rest)),
        ]
        tokens = rng.permuted(np.concatenate(parts, axis=1), axis=1)
        return Split(tokens.astype(np.int32), labels.astype(np.float32))

    def ideal_sensitivity(self) -> tuple[float, float]:
        """Sensitivity of sign<v_sp, counts> and of sign<v_freq, counts>, in closed form.

        A token is replaced by a uniform one of the M, and a tie counts as a change. With F = m/M
        for frequent and 1/M for sparse tokens, k of the T tokens voting for the label, k0 voting
        for neither, and a surplus of s votes ::

            [ k (1 - F) + k0 F ] / T  for s = 1,     k F / T  for s = 2,     0  for s >= 3

        because one replacement lowers the surplus by 1 (a vote lost, or a vote against gained) or
        by 2 (a vote changed). Tables 1 and 3 of the paper print such numbers.
        """

        def flips(surplus: int, own: int, neither: int, share: float) -> float:
            changes = {1: own * (1 - share) + neither * share, 2: own * share}
            return changes.get(surplus, 0.0) / self.length

        frequent = [
            flips(s, (self.n_f + s) // 2, self.length - self.n_f, self.m / self.vocabulary)
            for s in self.surpluses
        ]
        return (
            flips(self.n_s, self.n_s, self.length - self.n_s, 1 / self.vocabulary),
            sum(frequent) / len(frequent),
        )


def vote(tokens: Int[Array, "n t"], weights: Float[Array, " m"]) -> Float[Array, " n"]:
    """sum_t weights[token t]: with the votes of one kind, an ideal predictor."""
    return weights[tokens].sum(axis=1)
