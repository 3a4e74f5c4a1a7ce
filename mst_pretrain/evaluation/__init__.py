"""What a frozen backbone's features are worth."""
