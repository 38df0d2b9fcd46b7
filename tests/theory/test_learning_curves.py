"""Predicted risks against closed forms, experiments, and one another."""

import math
from dataclasses import replace

import numpy as np
import pytest

from theory.architecture import Architecture
from theory.column_blocks import column_spectrum
from theory.dot_product import dot_product_spectrum
from theory.learning_curves import (
    Modes,
    kernel_regression,
    modes_of,
    predicted_risk,
    samples_to_learn,
)
from theory.recursion import ck_ntk
from theory.spectrum import architecture_spectrum
from theory.symmetry import points
from theory.trained_curves import trained_risk

MLP = Architecture(attention="none", mlp="relu", bias=0.1)
TWO = Architecture(tokens=2, mlp="relu", positions=0.5)


def flat(count, ridge_modes=0):
    """`count` eigenvalues 1, all of degree 0, and perhaps a null space that holds degree 1."""
    return Modes(
        4,
        np.array([0.0, -np.inf]),
        np.log([count, max(ridge_modes, 1)]),
        np.eye(2),
    )


@pytest.mark.parametrize("n", [1.0, 30.0, 99.0])
def test_a_flat_spectrum(n):
    """Least-norm regression on N equal modes learns the share n / N and nothing else is known."""
    risk = predicted_risk(flat(100), n)
    assert risk.learnability[0] == pytest.approx(n / 100, rel=1e-9)
    np.testing.assert_allclose(risk.by_degree, [1 - n / 100, 1 / (1 - n / 100)], rtol=1e-9)


def test_a_flat_spectrum_with_ridge_and_noise():
    """n = N / (1 + kappa) + ridge / kappa is a quadratic equation."""
    n, count, ridge, noise = 40.0, 100.0, 3.0, 0.7
    b, c = n - count - ridge, -ridge  # n kappa² + b kappa + c = 0
    kappa = (-b + math.sqrt(b**2 - 4 * n * c)) / (2 * n)
    share = 1 / (1 + kappa)
    factor = n / (n - count * share**2)
    risk = predicted_risk(flat(count), n, ridge=ridge, noise=noise)
    assert risk.kappa == pytest.approx(kappa, rel=1e-9)
    assert risk.by_degree[0] == pytest.approx(
        factor * ((1 - share) ** 2 + noise**2) - noise**2, rel=1e-9
    )


def test_more_samples_than_rank():
    risk = predicted_risk(flat(100), 200.0)
    assert risk.kappa == 0
    assert risk.overfitting == pytest.approx(2)
    np.testing.assert_allclose(risk.by_degree, [0.0, 2.0])  # the null space acts as noise


@pytest.mark.parametrize(("architecture", "kind"), [(MLP, 0), (MLP, 1), (TWO, 1)], ids=str)
def test_against_kernel_regression(architecture, kind):
    """An approximation, worst for what is nearly learned: 10 % of the error, 2 % of the target's
    variance, and the noise of 30 trials, at n well under 2^d."""
    d, ridge = 10, 1e-4
    x = points(np.arange(2**d), d)
    modes = modes_of(architecture_spectrum(architecture, d)[kind], 4)
    kernel = ck_ntk(architecture, x, x)[kind]
    for n in (10, 60):
        found = kernel_regression(kernel, n, 4, ridge=ridge, trials=30)
        stderr = found.std(0, ddof=1) / 30**0.5
        gap = np.abs(found.mean(0) - predicted_risk(modes, n, ridge=ridge).by_degree)
        assert np.all(gap < 0.1 * found.mean(0) + 0.02 + 4 * stderr)


def test_every_kind_of_spectrum_gives_the_same_curve():
    one, two = MLP, TWO
    for a, b in (
        (dot_product_spectrum(one, 8), architecture_spectrum(one, 8)),
        (column_spectrum(two, 8), architecture_spectrum(two, 8)),
    ):
        for u, v in zip(a, b, strict=True):
            curves = [predicted_risk(modes_of(s, 4), 20.0, ridge=1e-3).by_degree for s in (u, v)]
            np.testing.assert_allclose(*curves, rtol=1e-9)


def test_what_is_left_out_acts_as_a_ridge():
    whole = modes_of(dot_product_spectrum(MLP, 64)[1], 3)
    kept = whole.log_eigenvalues > whole.log_eigenvalues[0] + math.log(1e-13)
    assert not kept.all()
    cut = Modes(
        64,
        whole.log_eigenvalues[kept],
        whole.log_multiplicity[kept],
        whole.shares[kept],
        whole.trace - replace(whole, log_eigenvalues=np.where(
            kept, whole.log_eigenvalues, -np.inf)).trace,
    )  # fmt: skip
    for n in (10.0, 1e3, 1e5):
        np.testing.assert_allclose(
            predicted_risk(cut, n).by_degree, predicted_risk(whole, n).by_degree, rtol=1e-6
        )


def test_the_equation_for_kappa_holds_at_large_d():
    modes = modes_of(dot_product_spectrum(MLP, 512)[1], 3)
    for n in (1.0, 1e4, 1e9):
        risk = predicted_risk(modes, n, ridge=0.1)
        logs = modes.log_multiplicity + np.log(np.maximum(risk.learnability, 1e-300))
        assert math.exp(np.logaddexp.reduce(logs)) + 0.1 / risk.kappa == pytest.approx(n, rel=1e-6)
        assert np.all(np.diff(risk.learnability) <= 1e-12)  # low degrees first
    needed = samples_to_learn(modes)
    # Degree k needs about as many samples as there are sets of that size.
    assert np.all(np.diff(np.log(needed)) > math.log(50))
    assert needed[1] == pytest.approx(512, rel=0.6)


def test_a_degree_that_the_kernel_does_not_hold():
    """Linear attention + ReLU at one token has no odd degree above 3."""
    modes = modes_of(dot_product_spectrum(Architecture(mlp="relu"), 16)[0], 6)
    needed = samples_to_learn(modes)
    assert needed[5] == math.inf
    assert np.isfinite(needed[[0, 1, 2, 3, 4, 6]]).all()
    assert predicted_risk(modes, 100.0).by_degree[5] >= 1


def test_trained_networks_follow_the_prediction():
    """Width 128 and a linear target; finite networks learn a little faster or slower."""
    d, n = 8, 24
    test_error, train_error = trained_risk(
        MLP, d, n, 1, width=128, steps=400, seeds=4, test_points=400
    )
    assert train_error.max() < 1e-3
    expected = predicted_risk(modes_of(dot_product_spectrum(MLP, d)[1], 1), n).by_degree[1]
    assert 0.5 * expected < test_error.mean() < 2 * expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predicted_risk(flat(10), 0.0), "positive and finite, got 0"),
        (lambda: predicted_risk(flat(10), 5.0, ridge=-1.0), "finite and >= 0, got -1"),
        (lambda: predicted_risk(flat(10), 10.0), "equal the rank"),
        (lambda: modes_of(dot_product_spectrum(MLP, 4)[0], 5), r"in 0\.\.4, got 5"),
        (lambda: kernel_regression(np.eye(3), 2, 1), "whole cube"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
