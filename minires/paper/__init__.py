"""What the paper published, as data, and what of it can be reproduced: one module a table or figure.

published    the paper's numbers, each with its place in the paper: never mixed with ours
table1       the architectures for ImageNet, with exact multiply-adds
table6       the CIFAR-10 networks: parameters, and the errors of runs where there are any
drawing      any network as in Figure 3, drawn from the model itself
gradients    how gradients change with depth at initialisation, with and without shortcuts and batch norm
"""
