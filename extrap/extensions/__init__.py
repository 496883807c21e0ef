"""What can be done to finished weights without training them further."""
