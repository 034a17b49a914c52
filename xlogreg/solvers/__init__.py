"""How weights move: gradient descent from start to end, in blocks, with callbacks; which rate is safe.

What a cost and a gradient are is `neuron`; how they are computed fast is `kernels`.
"""
