"""Both noise bounds on every function of four bits, on random networks and on trained ones."""

import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from jaxsens import boolean
from theory import noise_table
from theory.finite_width import Network
from theory.network_functions import mlp, random_functions, trained_functions
from theory.noise_bounds import check_average_sensitivity_bound, check_proposition_3_2
from theory.noise_table import exact_table, four_bits, noise_of

# What compiles is shared: one family, one number of draws and of seeds.
BITS, SEEDS = noise_table.BITS, 2
FAMILY = mlp(BITS, width=8)


@pytest.fixture(scope="module")
def drawn():
    return random_functions(FAMILY, draws=SEEDS, seed=3)  # neither is constant


@pytest.fixture(scope="module")
def trained():
    return trained_functions(FAMILY, noise_table.sparse_parity(), seeds=SEEDS)


def test_median_tightness_over_all_functions_of_four_bits():
    noise = noise_of(four_bits(), 0.9)
    assert noise.holds()
    kept = noise.varying
    assert kept.sum() == 2**16 - 2
    sharp, loose = (noise.probability[kept] / b[kept] for b in (noise.by_average, noise.by_maximum))
    assert np.median(sharp) == pytest.approx(0.981, abs=5e-4)
    assert np.median(loose) == pytest.approx(0.255, abs=5e-4)
    rows = exact_table().splitlines()
    assert "| 0.98 |" in rows[2]
    assert rows[2].endswith("| 0.26 |")


def enumerated(f, rho):
    """Pr[f(x) != f(x')], S and S_max from pairs and neighbours, one after another."""
    d = len(f).bit_length() - 1
    probability, counts = 0.0, []
    for x, y in itertools.product(range(2**d), repeat=2):
        flips = (x ^ y).bit_count()
        weight = ((1 + rho) / 2) ** (d - flips) * ((1 - rho) / 2) ** flips / 2**d
        probability += weight * (f[x] != f[y])
    for x in range(2**d):
        counts.append(sum(f[x] != f[x ^ 1 << i] for i in range(d)))
    return probability, np.mean(counts), max(counts)


def test_networks_functions_against_enumeration(drawn, trained):
    for f in (drawn[1], trained.tables[1, 1]):
        probability, average, maximum = enumerated(f, 0.8)
        noise = noise_of(f, 0.8)
        assert noise.probability[0] == pytest.approx(probability, abs=1e-14)
        assert (noise.average[0], noise.maximum[0]) == (average, maximum)
        assert noise.by_average[0] == check_average_sensitivity_bound(f, 0.8).bound
        assert noise.by_maximum[0] == check_proposition_3_2(f, 0.8).bound
        assert probability <= noise.by_average[0] + 1e-14 <= noise.by_maximum[0] + 2e-14


def test_a_random_function_is_the_sign_of_its_network(drawn):
    assert not np.array_equal(*drawn)
    rngs = nnx.Rngs(params=jax.random.split(jax.random.key(3), SEEDS)[1])
    network = Network(FAMILY.architecture, BITS, 8, rngs=rngs)
    outputs = np.asarray(network(boolean.cube(BITS)))
    assert np.array_equal(np.where(outputs > 0, 1, -1), drawn[1])


def test_training_learns_the_parity_and_the_bounds_hold_on_the_way(trained):
    parity = noise_table.sparse_parity()
    assert trained.tables.shape == (SEEDS, 11, 2**BITS)
    assert trained.steps.tolist() == list(range(0, 201, 20))
    agrees = (trained.tables[:, -1] == parity).mean(axis=1)
    # All points trained on are fitted, so what is wrong is in the half that was not.
    np.testing.assert_allclose(agrees, 0.5 + 0.5 * trained.accuracy[:, -1])
    assert agrees.min() > 0.9 > (trained.tables[:, 0] == parity).mean(axis=1).max()
    noise = noise_of(trained.tables.reshape(-1, 2**BITS), 0.9)
    assert noise.holds()
    # A network on the way to a parity of 3 nearly attains the bound by S, never that by S_max.
    last = noise_of(trained.tables[:, -1], 0.9)
    assert np.all(last.probability / last.by_average > 0.9)
    assert np.all(last.probability / last.by_maximum < 0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": np.ones(3)}, r"table of 256 values, got \(3,\)"),
        ({"steps": 5, "every": 2}, "multiple of every, got 1, 5 and 2"),
        ({"seeds": 0}, "got 0, 200 and 20"),
        ({"share": 1.0}, "both sides, got 1.0 of 256"),
    ],
)
def test_sizes_that_do_not_fit(options, message):
    arguments = {"target": noise_table.sparse_parity(), "seeds": 1} | options
    with pytest.raises(ValueError, match=message):
        trained_functions(FAMILY, **arguments)


def test_networks_that_diverge_have_no_function():
    with pytest.raises(ValueError, match="outputs of the networks are NaN"):
        trained_functions(FAMILY, noise_table.sparse_parity(), seeds=SEEDS, rate=1e38)


def test_the_rows_of_networks(monkeypatch):
    monkeypatch.setattr(noise_table, "FAMILIES", {"MLP": FAMILY})
    lines = noise_table.noise_table(0.5, SEEDS, SEEDS).splitlines()
    assert len(lines) == 2 + 6 + 1 + 2
    assert len({line.count("|") for line in lines}) == 1
    assert "MLP, 2 random ones, median" in lines[8]
    assert "200 steps on a parity of 3" in lines[10]
    with pytest.raises(ValueError, match=r"got -0\.5"):
        noise_of(four_bits()[:1], -0.5)
