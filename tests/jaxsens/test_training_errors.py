"""Training that goes wrong, and arguments that cannot be: one line each."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from witnesses.small_training import (
    Linear,
    Noisy,
    data,
    keys,
    last,
    trainer,
)

from jaxsens._finite import check_losses
from jaxsens.losses import cross_entropy, plain
from jaxsens.training import Split, Trainer, fit


def schedule(count):
    return jnp.where(count < 5, 0.1, jnp.inf)


@pytest.mark.parametrize(
    ("rate", "named"), [(1e38, r" \(learning rate 1e\+38\)"), (schedule, r" \(learning rate inf\)")]
)
def test_a_loss_that_is_not_finite_names_the_place(rate, named):
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
    subject = trainer(optimizer=optimizer)
    message = rf"not finite at epoch \d+, step \d+, seed number [01]{named}; lower the learning"
    with pytest.raises(FloatingPointError, match=message):
        last(fit(subject, data(), keys=keys(0, 1), epochs=3))


def test_the_first_bad_loss_in_time_is_named():
    losses = np.zeros((3, 8))  # after 2 steps of epoch 11 of 4 steps each
    losses[0, 5] = losses[2, 3] = np.nan
    losses[1, 4] = -np.inf
    with pytest.raises(FloatingPointError, match="epoch 12, step 2, seed number 2; lower"):
        check_losses(losses, first_step=42, steps_per_epoch=4)


def test_a_last_update_that_overflows_is_caught_before_it_is_measured():
    subject = trainer(seeds=(0, 1), batch_size=None, optimizer=optax.sgd(float("inf")))
    states = fit(subject, data(), keys=keys(0, 1), epochs=1)
    next(states)
    with pytest.raises(FloatingPointError, match="not finite after epoch 1, step 1, seed"):
        next(states)


def test_optimizers_without_one_learning_rate_are_fine():
    both = optax.chain(
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.2),
    )
    last(fit(trainer(optimizer=both), data(), keys=keys(0, 1), epochs=1))


def mean_loss(outputs, labels):
    return cross_entropy(outputs, labels).mean()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: trainer(seeds=()), "models is empty"),
        (lambda: Trainer([Linear(rngs=nnx.Rngs(0)), Noisy(rngs=nnx.Rngs(0))], optax.sgd(1),
                         batch_size=1), "models differ in structure"),
        (lambda: Trainer([Linear(rngs=nnx.Rngs(0), features=n) for n in (4, 5)], optax.sgd(1),
                         batch_size=1), "models differ in structure"),
        (lambda: trainer(batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: next(fit(trainer(), data(), keys=keys(0), epochs=1)), "one for each of 2 models"),
        (lambda: next(fit(trainer(), data(), keys=keys(0, 1), epochs=1, every=0)), "every must be"),
        (lambda: last(fit(trainer(), data(0), keys=keys(0, 1), epochs=1)), "0 inputs and 0 labels"),
        (lambda: last(fit(trainer(), Split(data().inputs, data().labels[:9]), keys=keys(0, 1),
                          epochs=1)), "23 inputs and 9 labels"),
        (lambda: trainer().evaluate(trainer().initial, data(0)), "0 inputs and 0 labels"),
        (lambda: trainer().evaluate(trainer().initial, data(), batch_size=0), "batch_size must be"),
        (lambda: last(fit(trainer(), data(), keys=keys(0, 1))), "give either epochs or steps"),
        (lambda: last(fit(trainer(), data(), keys=keys(0, 1), epochs=1, steps=1)), "either epochs"),
        (lambda: trainer(loss=lambda *args: None), "metrics is missing"),
        (lambda: trainer(loss=plain(mean_loss)).evaluate(trainer().initial, data()),
         r"loss has shape \(\); expected one value per example, \(23,\)"),
        (lambda: last(fit(trainer(loss=plain(mean_loss)), data(), keys=keys(0, 1), epochs=1)),
         r"loss has shape \(\); expected one value per example, \(5,\)"),
    ],
)  # fmt: skip
def test_misuse_is_one_line(attempt, message):
    with pytest.raises(ValueError, match=message) as error:
        attempt()
    assert "\n" not in str(error.value)
