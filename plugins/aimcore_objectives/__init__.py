"""Built-in plugin of aimcore."""
