"""What a file says of its own origin. Base install; C2PA is validated with the extra `c2pa`."""

from distildire.provenance.declares import Origin, declares, findings, read_origin
from distildire.provenance.statements import Declaration

__all__ = ["Declaration", "Origin", "declares", "findings", "read_origin"]
