"""What faces the visitors."""
