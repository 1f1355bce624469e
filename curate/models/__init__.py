"""What a MODEL argument means."""
