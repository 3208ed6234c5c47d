"""The parts of the generate stage: grammars read, command lines sampled, mistakes made in them."""
