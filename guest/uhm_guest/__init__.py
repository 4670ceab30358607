"""What runs inside a machine, and how it is packed: kernel, initramfs, base root file system."""
