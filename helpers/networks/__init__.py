"""Keras, before anything is compressed: data, models, training, checkpoints."""
