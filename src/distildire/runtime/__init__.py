"""What runs a graph: ONNX Runtime, and the conversion to OpenVINO.

Base install (converting needs the package openvino). Bundles that need torch are run by
`distill.torch_bundle`, which is opened here and imported only then.
"""
