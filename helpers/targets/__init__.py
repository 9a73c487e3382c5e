"""Other processors to measure on: over ssh, under emulation, on a GPU. Needs no TensorFlow."""
