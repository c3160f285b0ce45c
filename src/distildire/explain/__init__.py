"""Why a verdict: heat map, stability, how the file was stored, the record.

Base install (C2PA manifests are checked with the extra `c2pa`).
"""
