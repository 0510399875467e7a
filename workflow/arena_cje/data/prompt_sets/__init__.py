"""Prompt sets: files, folders and data sets of the Hugging Face Hub, read once and made into prompts in a seeded order."""
