"""Fair shares in the database: when an owner has room, and the triggers that count."""
