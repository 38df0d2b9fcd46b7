"""The estimator: how often one replaced token changes a model's decision (paper A, Def. 4.1)."""

from typing import Any

from jax import Array

from jaxsens._estimate import SensitivityEstimate as SensitivityEstimate
from jaxsens._measure import measure
from jaxsens.noise import Noise
from jaxsens.placement import placed
from jaxsens.tokens import Tokens


@placed
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
    allocation: str | None = None,
    passes: int | None = None,
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
        probabilities), a function outputs -> integers (N,), or ``jaxsens.decision`` for argmax and
        sign unguarded say so and pass in silence.
      repeats: fresh draws for each token; a deterministic noise is drawn once whatever this says.
      tokens_per_example: measure this many distinct tokens of each example, drawn uniformly,
        instead of all T. Unbiased, and for one budget of passes it allows more examples.
      target_stderr: measure until the half-width of the 95 % interval is below 1.96 times this.
        Warns if all N examples do not suffice.
      allocation: where passes are spent. "uniform": the same for every example (with a target:
        examples in random order). "adaptive": every example that is looked at is passed once
        unperturbed; those of small margin then get several tokens and draws, of the others only a
        share gets one. Unbiased, and for one standard error it needs about 10 times fewer passes
        than all tokens with 5 draws; ``repeats`` is the most draws of one token. None is adaptive
        where ``target_stderr`` or ``passes`` is given (with a target not for
        ``tokens_per_example`` and ``Scatter``), else uniform.
      passes: a budget for the adaptive allocation in place of a target, spent to within about
        fifteen per cent.
      batch_size: forward rows at a time, which bounds memory whatever N, T and ``repeats`` are:
        the model is called with exactly so many, the last batch filled up. None: the power of two
        with which the largest array that the model computes stays within 32 MiB, at most 512, on a
        CPU; elsewhere within a 32nd of the device's memory, at most 16,384.
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
    return measure(
        [model], inputs, key=key, tokens=tokens, noise=noise, perturb=perturb, embed=[embed],
        decision=decision, repeats=repeats, tokens_per_example=tokens_per_example,
        target_stderr=target_stderr, allocation=allocation, passes=passes, batch_size=batch_size,
        mesh=mesh,
    )[0]  # fmt: skip
