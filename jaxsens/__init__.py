"""jaxsens: how much a decision moves when one token of the input is nudged."""
