"""Training loops as generators of reports: the trainer yields, the caller decides whether to continue."""
