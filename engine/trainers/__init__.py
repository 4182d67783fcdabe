"""Training loops as generators of reports: the engine yields, the caller decides."""
