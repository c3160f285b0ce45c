"""What runs a graph: ONNX Runtime (CPU, CUDA) and OpenVINO behind one interface.

Base install; a device of an extra is imported where it is asked for. Bundles that need torch
are run by `distill.torch_bundle`, which is opened here and imported only then.
"""
