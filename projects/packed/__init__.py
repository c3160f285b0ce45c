"""Training on a GPU from small packs of pictures: see README.md."""
