"""jaxsens.boolean against exhaustive enumeration in plain NumPy and against closed forms."""

import itertools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxsens import boolean

D = 5
tables = st.lists(st.sampled_from([-1, 1]), min_size=2**D, max_size=2**D).map(np.array)


def points(d):
    return np.array(list(itertools.product([1, -1], repeat=d)))


def index_of(x):
    return int("".join("0" if v > 0 else "1" for v in x), 2)


def slow_sensitivity(f, d):
    """S(f, x) and influences by walking every edge of the cube."""
    at, influence = np.zeros(2**d, int), np.zeros(d)
    for x in points(d):
        for i in range(d):
            y = x.copy()
            y[i] *= -1
            if f[index_of(x)] != f[index_of(y)]:
                at[index_of(x)] += 1
                influence[i] += 1 / 2**d
    return at, influence


def slow_coefficients(f, d):
    xs = points(d)
    subsets = itertools.product([0, 1], repeat=d)
    return np.array([np.mean(f * np.prod(np.where(np.array(u), xs, 1), 1)) for u in subsets])


def test_cube_order_is_the_stated_one():
    np.testing.assert_array_equal(boolean.cube(4), points(4))
    np.testing.assert_array_equal(boolean.set_sizes(3), [0, 1, 1, 2, 1, 2, 2, 3])


@pytest.mark.parametrize("d", range(1, 10))
def test_transform_against_the_matrix(d):
    matrix = np.array([[1]])
    for _ in range(d):
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    f = np.random.default_rng(d).integers(-9, 9, (2, 3, 2**d)).astype(np.int8)
    got = boolean.walsh_hadamard(f)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, f.astype(int) @ matrix)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_transform_is_its_own_inverse_in_its_own_precision(dtype):
    f = np.random.default_rng(0).normal(size=2**11).astype(dtype)
    with jax.enable_x64(True):
        back = boolean.walsh_hadamard(boolean.walsh_hadamard(f)) / len(f)
    assert back.dtype == dtype
    np.testing.assert_allclose(back, f, atol=20 * np.finfo(dtype).eps)


def test_transform_traces_once_and_nests_in_jit():
    traces = []

    @jax.jit
    def twice(x):
        traces.append(x.shape)
        return boolean.walsh_hadamard(2 * x)

    for seed in range(3):
        x = jnp.asarray(np.random.default_rng(seed).normal(size=64), jnp.float32)
        np.testing.assert_allclose(twice(x), 2 * boolean.walsh_hadamard(x), rtol=1e-5)
    assert len(traces) == 1


def test_a_large_cube_needs_memory_of_the_order_of_its_table():
    d = 20
    compiled = boolean.walsh_hadamard.lower(jax.ShapeDtypeStruct((2**d,), jnp.int32)).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes <= 4 * 4 * 2**d
    coefficients = boolean.fourier_coefficients(boolean.parity(d))
    assert coefficients[-1] == 1
    assert np.count_nonzero(coefficients) == 1


@given(tables)
def test_measures_against_enumeration(f):
    at, influence = slow_sensitivity(f, D)
    coefficients = slow_coefficients(f, D)
    sizes = np.array([sum(u) for u in itertools.product([0, 1], repeat=D)])
    np.testing.assert_array_equal(boolean.sensitivity_at(f), at)
    np.testing.assert_array_equal(boolean.influences(f), influence)
    np.testing.assert_array_equal(boolean.fourier_coefficients(f), coefficients)
    np.testing.assert_array_equal(
        boolean.weights_by_degree(f), [np.sum(coefficients[sizes == k] ** 2) for k in range(D + 1)]
    )
    np.testing.assert_array_equal(
        boolean.sensitivity_profile(f), np.bincount(at, minlength=D + 1) / 2**D
    )
    assert boolean.average_sensitivity(f) == np.mean(at) == np.sum(sizes * coefficients**2)
    assert boolean.maximum_sensitivity(f) == at.max()
    assert boolean.degree(f) == np.max(sizes, where=coefficients != 0, initial=0)
    assert np.sum(coefficients**2) == 1
    assert boolean.degree(f) <= boolean.maximum_sensitivity(f) ** 2


@given(tables, st.floats(-1, 1))
def test_noise_stability_against_the_direct_sum(f, rho):
    xs = points(D)
    differ = (D - xs @ xs.T) / 2
    joint = ((1 + rho) / 2) ** (D - differ) * ((1 - rho) / 2) ** differ / 2**D
    assert boolean.noise_stability(f, rho) == pytest.approx(f @ joint @ f, abs=1e-14)


def test_noise_stability_against_monte_carlo():
    f, rho, n = np.asarray(boolean.tribes(9, 3)), np.array([-0.3, 0.6]), 200_000
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2**9, n)
    for value, r in zip(boolean.noise_stability(f, rho), rho, strict=True):
        flips = (rng.random((n, 9)) < (1 - r) / 2) @ 2 ** np.arange(9)
        products = f[x] * f[x ^ flips]
        assert abs(products.mean() - value) < 4 * products.std() / math.sqrt(n)


def test_batches_equal_their_rows():
    fs = np.asarray(
        jax.vmap(lambda key: boolean.random(6, key=key))(jax.random.split(jax.random.key(0), 4))
    )
    assert 0.3 < (fs > 0).mean() < 0.7
    measures = [
        boolean.fourier_coefficients,
        boolean.weights_by_degree,
        boolean.degree,
        boolean.influences,
        boolean.sensitivity_at,
        boolean.sensitivity_profile,
        boolean.average_sensitivity,
        boolean.normalised_sensitivity,
        boolean.maximum_sensitivity,
        lambda f: boolean.noise_stability(f, [[0.1, 0.5]]),
    ]
    for measure in measures:
        together = measure(fs.reshape(2, 2, -1))
        rows = np.stack([measure(f) for f in fs])
        # Only the order of a sum over degrees may differ.
        np.testing.assert_allclose(together, rows.reshape(2, 2, *rows.shape[1:]), rtol=1e-15)


@pytest.mark.parametrize("d", [3, 7, 11])
def test_closed_forms(d):
    parity, dictator, majority = boolean.parity(d), boolean.dictator(d, 1), boolean.majority(d)
    assert boolean.average_sensitivity(parity) == boolean.maximum_sensitivity(parity) == d
    assert boolean.degree(parity) == d
    assert boolean.noise_stability(parity, 0.5) == 0.5**d
    np.testing.assert_array_equal(boolean.influences(dictator), np.arange(d) == 1)
    assert boolean.degree(dictator) == 1
    # A flip matters for majority when the other d - 1 coordinates tie.
    pivotal = math.comb(d - 1, (d - 1) // 2) / 2 ** (d - 1)
    np.testing.assert_array_equal(boolean.influences(majority), np.full(d, pivotal))
    assert boolean.maximum_sensitivity(majority) == (d + 1) // 2
    np.testing.assert_array_equal(boolean.parity(d, [0, 2]), points(d)[:, 0] * points(d)[:, 2])
    np.testing.assert_array_equal(majority, np.sign(points(d).sum(1)))


@pytest.mark.parametrize(("d", "width"), [(6, 2), (9, 3), (4, 1), (4, 4)])
def test_tribes(d, width):
    f = boolean.tribes(d, width)
    expected = [-1 if any(all(t < 0) for t in x.reshape(-1, width)) else 1 for x in points(d)]
    np.testing.assert_array_equal(f, expected)
    # The rest of the tribe is true and no other tribe has won.
    influence = 2 ** (1 - width) * (1 - 2.0**-width) ** (d // width - 1)
    np.testing.assert_allclose(boolean.influences(f), influence, rtol=1e-15)


@pytest.mark.parametrize("batch_size", [1, 5, 64, 2**14])
def test_evaluate_is_the_sign_of_a_callable_for_any_batch(batch_size):
    table = boolean.evaluate(lambda x: x.sum(1, keepdims=True) * 0.1, 5, batch_size=batch_size)
    np.testing.assert_array_equal(table, boolean.majority(5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: boolean.influences(np.ones(6)), "2\\^d values .* got 6"),
        (lambda: boolean.influences(np.int8(1)), "got a scalar"),
        (lambda: boolean.influences(np.array([1, 0])), r"\+1 and -1, got 0"),
        (lambda: boolean.degree(np.array([True, False])), "got True"),
        (lambda: boolean.sensitivity_at(np.array([1.0, np.nan])), "got nan"),
        (lambda: boolean.walsh_hadamard(jnp.ones(12)), "got 12"),
        (lambda: boolean.noise_stability(np.ones(4), 1.5), r"\[-1, 1\], got 1.5"),
        (lambda: boolean.noise_stability(np.ones(4), [0.0, np.nan]), r"\[-1, 1\], got nan"),
        (lambda: boolean.majority(4), "odd d"),
        (lambda: boolean.tribes(8, 3), "divide d = 8, got 3"),
        (lambda: boolean.parity(3, [0, 3]), r"0\.\.2, got \[0, 3\]"),
        (lambda: boolean.dictator(3, -1), r"got \[-1\]"),
        (lambda: boolean.cube(0), r"1\.\.30 .* got 0"),
        (lambda: boolean.cube(31), "sample inputs"),
        (lambda: boolean.evaluate(lambda x: x, 3), r"\(n,\) or \(n, 1\), got \(8, 3\)"),
        (lambda: boolean.evaluate(lambda x: x[:, 0] * np.nan, 3), "NaN"),
        (lambda: boolean.evaluate(lambda x: x[:, 0], 3, batch_size=0), "at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
