"""What reconstructions of photographs add to training, as fakes of the same content."""
