"""The plumbing that the notebooks, the commands and the tests share.

Nothing is imported here: `python -m helpers --help` must answer without loading TensorFlow.
"""
