"""The commands of `tapeline`, one module per subject, imported when a command runs."""
