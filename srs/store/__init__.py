"""What lies on disk: sealed files, where each lies, counts, and what the repository brings along."""
