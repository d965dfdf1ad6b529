"""Fused kernels for processors with AVX-512 and bf16 products: what a small model's step is made of, beside products.

Small models die of dispatch: a chain of a dozen operations over a tensor costs more than their arithmetic. Each
kernel here does such a chain in one pass. They are optional: without a compiler, on another processor, a GPU or in
fp32 the plain PyTorch forms beside them compute the same.
"""
