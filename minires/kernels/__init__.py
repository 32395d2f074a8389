"""What is done with a single CUDA kernel on a machine without a GPU, a rung of the ladders or a file of your own.

step    run it in gdb
"""
