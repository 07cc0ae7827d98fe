"""The job: what it is, how its life runs, where it is kept. Knows neither Flask nor SGLang."""
