"""The routes that OpenAI's clients call: adapters to the same jobs, images and files that the native routes serve."""
