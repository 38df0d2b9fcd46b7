"""Published weights: files, their layouts, and the hub they come from."""
