"""Write the rows of final windows to tables of their own in the lake, and amend them when late events come."""
