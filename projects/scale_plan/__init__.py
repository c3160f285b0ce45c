"""What a job of very many pictures takes, and where it bends (docs/scale.md)."""
