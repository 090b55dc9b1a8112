"""Ids to batches: sentence pairs, packing, the row store, masking and the tf.data pipelines."""
