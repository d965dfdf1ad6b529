"""Without a GPU the kernels run in Triton's interpreter, which has to be asked for before Triton is imported."""

import os
import sys

import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"
