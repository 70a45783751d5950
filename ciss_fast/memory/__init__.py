"""What is kept of earlier steps and replayed at later ones."""
