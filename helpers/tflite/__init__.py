"""A `.tflite` in hand: what is in it, running it here or elsewhere, measuring it. Needs no TensorFlow."""
