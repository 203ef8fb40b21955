"""What is measured, a file for each kind. A case is a function that takes the stage and answers tables."""
