"""The hand-written kernels beside cuBLAS, cuDNN and PyTorch, on the GPU at hand.

clock          how long the device computes
precision      the precision of a kernel, and how far off its result may be
journal        one JSON line a row, on disk before the next row begins
peers          cuBLAS, cuDNN and whole networks through PyTorch, on CuPy's stream and memory
products       ceilings of the device; products of matrices
convolutions   the distinct convolutions of the paper's networks
networks       training steps and inference
tables         the JSON lines as tables, chart and stored results

A *row* is one kernel on one problem beside its best peer, in one precision.
"""
