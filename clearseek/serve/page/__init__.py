"""What the page is given out by and asks: its files, conversations, answers, and whether anything is kept."""
