"""Tables and plots from the results.json files that runs leave behind."""
