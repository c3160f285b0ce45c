"""Scoring of very many pictures, on this machine or on a Ray cluster (extra `scale`)."""
