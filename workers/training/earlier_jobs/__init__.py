"""Earlier jobs: take over their epochs, or retrain them to compare results."""
