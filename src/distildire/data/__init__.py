"""Data: manifests, dataset layouts, augmentation, caches and the audit."""
