"""Experiments that answer a question about the method, each in one command. Extra `train`."""
