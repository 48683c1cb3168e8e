"""The equal parts of the reading order for which validation losses are reported, as in arXiv:2401.08541, Figure 7."""

NUM_CHUNKS = 16
"""The paper does not give its number."""
