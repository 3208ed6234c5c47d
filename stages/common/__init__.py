"""What several stages share: configuration, paths, files, errors, the chat format, llama.cpp, metrics."""
