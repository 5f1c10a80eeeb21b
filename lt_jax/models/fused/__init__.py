"""Training passes in kernels of their own, for networks whose kernels leave a GPU idle."""
