"""One module per notebook, of the same name: what the notebook measures, and the tables and figures that it shows."""
