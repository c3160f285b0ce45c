"""Why a verdict: heat map, stability, what a file says of itself, the record.

Base install (C2PA manifests are checked with the extra `c2pa`).
"""
