"""Everything that touches llama.cpp: model files, chat templates, sampling distributions, scoring, generation."""
