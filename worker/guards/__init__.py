"""Guards against the model's known weaknesses: loops, spent budgets, drifting language, wasted or wrong answers."""
