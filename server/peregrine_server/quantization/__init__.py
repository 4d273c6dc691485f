"""`peregrine quantize`: a checkpoint written anew with quantized weights, which loads without rounding.

Runs in a process of its own: the router, which starts it, loads no torch.
"""
