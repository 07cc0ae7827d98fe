"""Guards against the known weaknesses of the model: loops, budget, language, convergence, verification, JSON."""
