"""The folder of the model `base`, found by distildire through its entry point."""
