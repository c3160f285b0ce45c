"""The paper's claims in a world of 64 pixels a side, where a CPU can check them."""
