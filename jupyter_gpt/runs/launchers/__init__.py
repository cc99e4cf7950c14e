"""What starts a run outside of the kernel, a module each."""
