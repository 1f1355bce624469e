"""Files that trainers read: one module per family."""
