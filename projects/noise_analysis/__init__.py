"""What simple statistics of eps0 tell of real and generated pictures (docs/noise.md)."""
