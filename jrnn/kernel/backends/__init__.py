"""The backends of the kernel: one file each, chosen by `jrnn.kernel.dispatch`."""
