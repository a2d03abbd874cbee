"""Tables, statistics, plots and one HTML page from the results that runs leave behind."""
