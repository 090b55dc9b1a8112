"""BERT pre-training and fine-tuning in JAX and Flax.

The package is laid out in rooms, each importing only from those below it: `text` turns strings into ids, `data` turns
ids into batches, `models` turns ids into vectors, `tasks` say what is learned, `training` how it is learned, and
`parallel` where it runs. `config` holds the architecture.
"""

__version__ = "0.1.0"
