"""The loop and what happens around a step."""
