"""Other people's files: Hugging Face directories and Google's TensorFlow checkpoints, beside bert_jax's own."""
