"""Judges files: the gate, its policy and reports, the package of an accepted model. Needs no TensorFlow."""
