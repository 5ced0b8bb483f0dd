"""World models that learn from features or pixels: batches in; losses, actions, latents and predictions out."""
