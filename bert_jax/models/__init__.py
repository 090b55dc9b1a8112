"""Ids to vectors to logits: Flax NNX modules that know no data, no optimizer and no mesh."""
