"""Pictures and files: decoding, the one preprocessing, finding, whole writes, hashes, output.

Base install.
"""
