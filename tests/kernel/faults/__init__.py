"""Parts of the kernel that are wrong in one place, each of which goes in by `kernel.Spec`."""
