"""The stages of the workflow, from input rows to output rows, and what every job does around them."""
