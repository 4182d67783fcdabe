"""What is due, and how it is sent: the scheduler alone connects to receivers."""
