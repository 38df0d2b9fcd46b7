"""What `experiments.robustness` measures of trained networks, and what it concludes."""
