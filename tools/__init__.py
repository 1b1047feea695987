"""What makes parts of this repository from its code. It is in no wheel."""
