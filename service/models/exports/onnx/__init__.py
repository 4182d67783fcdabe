"""ONNX: a trained network as a graph of standard operators."""
