"""Noise sources: networks that give the first-step noise of an image."""
