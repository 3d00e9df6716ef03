"""What is done with the method: demo, tables and figures."""
