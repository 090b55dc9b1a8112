"""Predictions to metrics: dictionaries of numbers, and tables for people. Imports no JAX."""
