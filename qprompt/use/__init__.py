"""What is done with a packed prompt once it is learned; needs open_clip."""
