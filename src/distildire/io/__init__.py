"""Pictures and files: decoding, the one preprocessing, finding, whole writes. Base install."""
