"""Why a verdict: heat map, stability, what a file says of itself, the record. Base install."""
