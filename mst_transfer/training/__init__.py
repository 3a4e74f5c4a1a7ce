"""Fine-tuning that resumes exactly, and what is checked before it."""
