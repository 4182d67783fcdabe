"""Earlier jobs: take over their epochs, or train them again to compare."""
