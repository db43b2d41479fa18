"""What every step needs: the command line, crash-safe files, the console, SLURM, the version."""

__version__ = "2.0.0.dev0"
