"""The estimator: how often one replaced token changes a model's decision (paper A, Def. 4.1)."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Int

from jaxsens._check import checked_inputs, checked_key, positive_float, positive_int
from jaxsens._decision import decision as decision
from jaxsens._estimate import SensitivityEstimate as SensitivityEstimate
from jaxsens._plan import Plan, generator, rates, sample_tokens
from jaxsens._run import Runner, check_protocols
from jaxsens.noise import Noise
from jaxsens.placement import Inputs, rows_mesh
from jaxsens.tokens import Tokens

FIRST_ROUND = 100  # examples measured before target_stderr is looked at


@jax.transfer_guard("allow")  # what goes to the device and back does so by design
def sensitivity(
    model: Any,
    inputs: Any,
    *,
    key: Array,
    tokens: Tokens | None = None,
    noise: Noise | None = None,
    perturb: str | int | None = None,
    embed: Any = None,
    decision: Any = None,
    repeats: int = 5,
    tokens_per_example: int | None = None,
    target_stderr: float | None = None,
    batch_size: int | None = None,
    mesh: Any = None,
) -> SensitivityEstimate:
    """Estimate how often replacing one token changes the decision of ``model``.

    ::

        S = E_x E_noise  1/T sum_{t=1..T}  1[ decision(model(x)) != decision(model(x, t replaced)) ]

    (paper A, Def. 4.1; Eq. 1 with ``Bits`` and ``Flip``, there divided by d). ``decision`` is the
    argmax of class logits and the sign of a scalar output. The paper's setting for CIFAR-10 is
    ``tokens=Patches(4), noise=Gaussian(variance=1.0)``.

    The inputs may be any pytree of arrays with the same number of examples: the model is given that
    pytree with one array perturbed, and everything else (a mask, lengths, side information) as it
    is. Where the perturbed array is computed from the inputs, ``embed`` does so on the device, a
    batch at a time; the model is then given what ``embed`` returns::

        # A caption's embeddings beside an image: noise on the patches alone.
        sensitivity(model, {"image": images, "caption": ids}, perturb="image",
                    tokens=Patches(4), noise=Gaussian(1.0), key=key)

        # Layer-normalised embeddings of token ids; padding is neither perturbed nor counted.
        def embed(net, batch):
            return {"tokens": net.norm(net.table(batch["ids"])), "mask": batch["mask"]}
        def logits(net, batch):
            return net.from_embeddings(batch["tokens"], batch["mask"])
        sensitivity(Partial(logits, net), {"ids": ids, "mask": mask}, embed=Partial(embed, net),
                    perturb="tokens", tokens=Positions(mask="mask"), noise=Gaussian(15.0), key=key)

        # Every real token at once (Table 4): tokens=Whole(mask="mask").

        # Both numbers of a pair at once; embed returns one array, so that nothing need be named.
        sensitivity(net.from_embeddings, pairs, embed=net.embed, tokens=Whole(),
                    noise=Gaussian(1.0), key=key)

    Args:
      model: any callable ``inputs -> outputs`` with outputs (N, C) or (N,): a flax.nnx or equinox
        module, ``jax.tree_util.Partial(linen_module.apply, variables)``, a method, a plain
        function. It is evaluated in inference mode; the caller's object is not touched. Pytrees
        compile once for each structure and shape; a plain function or a functools.partial of one,
        which may hide changing weights, on every call.
      inputs: an array (N, ...), batch first, or a pytree of such arrays; examples are taken to be
        independent draws. They go to the device once, or a part at a time where a quarter of its
        memory does not hold them.
      key: a PRNG key. The same key gives the same noise whatever ``batch_size`` is.
      tokens: what a token is: ``Patches``, ``Positions``, ``Bits``, ``Whole``, ``Scatter``.
      noise: what replaces it: ``Gaussian`` (a variance), ``Replacement``, ``Flip``.
      perturb: which array of the inputs (of what ``embed`` returns) holds the tokens: its key,
        field or index, joined by dots where nested ("text.embedding"). None where there is but one.
      embed: a callable ``inputs -> what the model is given``, of any kind that ``model`` may be and
        in inference mode like it. It sees blocks of examples inside the compiled program, so that
        the embeddings of all examples never exist at once. ``noise.check`` sees those of a few.
      decision: how outputs are read. None: the argmax of class logits (N, C), the sign of scalars
        (N,) or (N, 1), guarded: integers other than -1, 0 and 1, scalars in [0, 1] and class labels
        are refused, and one decision for everything is warned of. "argmax", "sign", "label" (whole
        numbers as they are), a number t or ``Threshold(t)`` (the sign of output - t; 0.5 for
        probabilities) or a function outputs -> integers (N,) say so and pass in silence.
      repeats: fresh draws for each token; a deterministic noise is drawn once whatever this says.
      tokens_per_example: measure this many distinct tokens of each example, drawn uniformly,
        instead of all T. Unbiased, and for one budget of passes it allows more examples.
      target_stderr: measure examples in random order and stop once the half-width of the 95 %
        interval is safely below 1.96 times this. Warns if all N examples do not suffice.
      batch_size: forward rows at a time, which bounds memory whatever N, T and ``repeats`` are:
        the model is called with exactly so many, the last batch filled up. None for up to 512.
      mesh: a ``jax.sharding.Mesh``: the rows of each batch are divided over all its devices, on
        this and other hosts (then every process makes the same call with the same arguments).
        Without it, over the devices that inputs or parameters are sharded over, if they are. Each
        device holds the whole model and inputs; the value is that of one device.

    Returns:
      A :class:`SensitivityEstimate` with ``value``, ``stderr``, ``per_token`` (T,), ``per_example``
      (N,), ``forward_passes``.

    Raises:
      TypeError: an argument that is missing or of the wrong kind, such as Gaussian noise on
        integers.
      ValueError: inputs that are empty, not finite or have no such tokens; numbers out of range; a
        model that returns NaN or outputs of another shape.
    """
    check_protocols(tokens, noise)
    assert tokens is not None  # for the type checker
    assert noise is not None
    token_key, order_key, noise_key = jax.random.split(checked_key(key), 3)
    repeats = positive_int("repeats", repeats)
    repeats = 1 if noise.deterministic else repeats
    mesh = rows_mesh(mesh, inputs, model)
    placed = Inputs.place(inputs, checked_inputs(inputs), mesh)
    runner = Runner(
        model, placed, key=noise_key, tokens=tokens, noise=noise, perturb=perturb, embed=embed,
        decision=decision, batch_size=batch_size,
    )  # fmt: skip
    chosen = runner.valid
    if tokens_per_example is not None:
        tokens_per_example = positive_int("tokens_per_example", tokens_per_example)
        chosen = sample_tokens(token_key, chosen, tokens_per_example)
    draws = chosen * repeats
    full = Plan(np.arange(len(placed)), draws)
    # One size of batch and block for the whole measurement: a round of its own size would compile.
    runner.shapes(full)

    def measure(plan: Plan) -> np.ndarray:
        decisions, _ = runner.run(plan)
        return rates(plan.flips(decisions), plan.draws)

    if target_stderr is None:
        estimate = SensitivityEstimate(measure(full), full.total, tokens.shared)
        runner.conclude(stacklevel=3)
        return estimate
    order = generator(order_key).permutation(len(placed))
    estimate = _until(
        positive_float("target_stderr", target_stderr), order, draws, measure, tokens.shared
    )
    runner.conclude(stacklevel=3)
    return estimate


def _until(
    target: float,
    order: Int[np.ndarray, " N"],
    draws: Int[np.ndarray, "N T"],
    run: Callable[[Plan], np.ndarray],
    shared: bool,
) -> SensitivityEstimate:
    """Measure examples in the given order until the standard error reaches the target."""
    found = np.full(draws.shape, np.nan)
    done, passes, goal = 0, 0, min(FIRST_ROUND, len(order))
    while True:
        examples = np.sort(order[done:goal])
        plan = Plan(examples, draws[examples])
        found[examples] = run(plan)
        done, passes = goal, passes + plan.total
        estimate = SensitivityEstimate(found, passes, shared)
        # To stop early is to stop on a low value with too small a standard error; the fewer the
        # flips, the more so. Asking for more while they are few keeps the coverage (measured).
        caution = np.sqrt(1 + 8 / max(estimate.events, 1.0))
        shortfall = estimate.half_width(0.95) / (1.96 * target)
        excess = shortfall * caution
        if excess <= 1 or (done == len(order) and shortfall <= 1):
            return estimate
        if done == len(order):
            warnings.warn(
                f"target_stderr={target:g} was not reached with all {done} examples (stderr "
                f"{estimate.stderr:.2g}); pass more examples, "
                "or raise tokens_per_example or repeats",
                stacklevel=4,
            )
            return estimate
        # Go to where the present variance says the target lies, in steps that are neither so small
        # that many looks bias the stop, nor so large that a chance excess is paid for.
        goal = min(len(order), int(np.ceil(done * np.clip(excess**2, 1.1, 2.0))))
