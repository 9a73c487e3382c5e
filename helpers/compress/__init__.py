"""What makes models small: pruning, quantization, quantization-aware training; and which layers bear it."""
