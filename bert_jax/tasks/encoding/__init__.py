"""Examples as token ids: cut to length, with what is to be predicted of them. NumPy, and no JAX."""
