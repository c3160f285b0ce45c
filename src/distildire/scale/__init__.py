"""Scoring of very many pictures, here or on a Ray cluster.

Extra `eval`; Ray and stores: extra `scale`.
"""
