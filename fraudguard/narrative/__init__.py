"""A case told in words: numbered evidence, and a text that links to it, by a language model or from a template."""
