"""What is inside of images: looking at it, comparing it, listing its packages, and putting something on top."""
