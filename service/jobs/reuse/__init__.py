"""Results that a job takes over from an earlier one instead of computing them again."""
