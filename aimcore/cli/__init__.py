"""The subcommands of ``aimcore``, one module each; each returns an exit status."""
