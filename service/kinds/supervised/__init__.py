"""What classifiers and regressors share: one network that learns from examples with targets."""
