"""The configuration: TOML and environment to frozen `Settings`, or errors that name the key."""
