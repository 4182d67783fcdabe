"""How many workers one PostgreSQL server carries: simulated workers that train nothing."""
