"""tiny-qvq's scenes and questions (Pillow only), and its training (PyTorch: the engine's environment)."""
