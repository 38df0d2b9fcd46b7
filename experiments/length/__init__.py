"""Why sensitive functions are hard for transformers: the experiments of paper B."""
