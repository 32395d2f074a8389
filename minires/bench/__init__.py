"""What is fast, measured: our backends beside PyTorch and onnxruntime on the processor at hand.

race         sides in processes of their own that take turns
sides        who may take part, and what each needs
networks     whole networks: inference and training steps
layers       single convolutions: forward and both gradients
limits       what this processor can do at best: products of matrices, memory
plan         what a run measures, and the run
report       its tables and goals
machine      what it was measured on
"""
