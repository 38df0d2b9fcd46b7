"""Settings shared by every test: rank promotion is an error, hypothesis has no deadline."""

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# The first example of a property compiles; a deadline would time the compiler.
hypothesis.settings.register_profile("jaxsens", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("jaxsens")
