"""What a file says of its own origin. Base install; C2PA is validated with the extra `c2pa`."""

from distildire.provenance.declares import Declaration, declares, findings

__all__ = ["Declaration", "declares", "findings"]
