"""What the web process and the workers agree on: specs, states, tables, transactions, files, names."""
