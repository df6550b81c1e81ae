"""Training a DEQ on noisy images: losses, the loop, and the card that says what came out."""
