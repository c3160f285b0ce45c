"""Manifests, dataset layouts, rebuilding, audit, augmentation, caches.

Extra `eval`; the training stream, the filling of caches and reconstructions: extra `train`.
"""
