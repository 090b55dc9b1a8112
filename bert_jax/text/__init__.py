"""Strings to ids: corpus readers, sentence splitting, tokenizers. Imports no JAX."""
