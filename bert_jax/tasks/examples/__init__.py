"""Task files, as people have them, to examples. Streams: no reader holds a file. Imports no JAX; TensorFlow lazily."""
