"""Manifests, dataset layouts, rebuilding, audit, augmentation, caches.

Extra `eval`; the training stream and the filling of caches: extra `train`.
"""
