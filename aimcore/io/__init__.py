"""Files of runs, locations by path or URL, text files, image files and terminals."""
