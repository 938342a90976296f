"""What is predicted, and how well: tasks, and the heads that hold them."""
