"""Write what the processors decided: data files and tables, rows of views, dead letters."""
