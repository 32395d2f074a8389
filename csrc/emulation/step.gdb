# Stops thread 37 of the first block where its tiles are complete, shows them, and steps through its first products.
set pagination off
set width 0
break gemm_04_registers.cu:41 if threadIdx.x == 37
run
print threadIdx
print tile_a[row]
next
next
print a
print b
print sum[0]
backtrace 1
