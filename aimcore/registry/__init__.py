"""Plugins and registries: hook specifications, discovery by entry points, and what each plugin supplies."""
