"""The subcommands of ``aimcore``, one module each. Each command returns an exit status."""
