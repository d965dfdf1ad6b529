"""The engine on GPUs: kernels in Triton, and the runner that takes a batch through a model with them."""
