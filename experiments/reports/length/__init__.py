"""Tables and figures of the experiments of paper B, from run records alone."""
