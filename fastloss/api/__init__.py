"""The public functions, by field."""
