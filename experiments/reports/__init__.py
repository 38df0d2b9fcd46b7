"""Tables and figures of single experiments, from run records alone."""
