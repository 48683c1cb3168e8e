"""Files, locations and terminals."""
