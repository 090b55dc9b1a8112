"""What is learned: for each task its batches, model, loss, metrics and predictions."""
