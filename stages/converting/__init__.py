"""What the stage `convert` is made of: merging, llama.cpp's converter, and the checks of the file it writes."""
