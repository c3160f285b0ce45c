"""What runs a model's graph: ONNX Runtime, OpenVINO (extra `openvino`), torch (extra `train`)."""
