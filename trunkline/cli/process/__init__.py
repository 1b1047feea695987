"""What keeps running in the foreground: a broker, workers and their supervisor, stand-ins of other systems."""
