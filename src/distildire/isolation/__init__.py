"""Decoding in processes of their own, for the service and for very many pictures. Base install."""
