"""What everything else stands on: the process's environment, the repository's files, the lab's errors."""
